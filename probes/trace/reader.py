"""Reading a trace file, also one that is just being written: opening it, its header, its tables, their columns."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from probes.trace.layout import EVENTS, FORMAT, UNFINISHED, VERSION, Array, Field, Header, TraceError, offsets_name

_ATTEMPTS = 5
_READ_ATTEMPTS = 26
_LIBRARY = ctypes.PyDLL(h5py.h5p.__file__)  # through the module, HDF5's own functions are found


def _read_text(where: h5py.HLObject, name: str, default: str = "") -> str:
    value = where.attrs.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def open_for_reading(path: Path) -> Iterator[h5py.File]:
    """The file as its last flush left it, also while a writer has it open and after a crashed one."""
    file = _open_trace(path)
    try:
        yield file
    finally:
        file.close()


def _open_trace(path: Path) -> h5py.File:
    if not path.is_file():
        raise TraceError(f"{path} is not a file" if path.exists() else f"there is no trace {path}")
    for attempt in range(_ATTEMPTS):
        try:
            file = _open_file(path)
            break
        except PermissionError:
            raise TraceError(f"{path} cannot be read: permission denied") from None
        except OSError as error:
            if not h5py.is_hdf5(path):
                raise TraceError(f"{path} is not an HDF5 file") from None
            foreign = _plain_file(path)
            if foreign is not None:
                file = foreign
                break
            if attempt == _ATTEMPTS - 1:
                reason = " ".join(str(error).split())
                raise TraceError(f"{path} is truncated or damaged: {reason}") from None
            time.sleep(0.02 * (attempt + 1))  # a writer was in the middle of a flush
    try:
        if _is_cut(path):
            raise TraceError(f"{path} is truncated or damaged: it is shorter than its header says")
        _check_format(file, path)
    except BaseException as error:
        file.close()
        if isinstance(error, RuntimeError):
            raise TraceError(f"{path} is truncated or damaged: {' '.join(str(error).split())[:200]}") from None
        raise
    return file


def _open_file(path: Path) -> h5py.File:
    """Open as a reader beside a writer: without a lock, which would stand in its way (it has one of our own)."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_file_locking(False, False)
    # HDF5 reads what a writer may just be writing again, up to 100 times, and waits twice as long each time: on
    # a damaged file for ever. 26 times are a tenth of a second. h5py does not know the call, its library does.
    limit = getattr(_LIBRARY, "H5Pset_metadata_read_attempts", None)
    if limit is not None:
        with h5py._objects.phil:
            limit(ctypes.c_int64(access.id), ctypes.c_uint(_READ_ATTEMPTS))
    flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=access))


class Superblock(NamedTuple):
    """What the first bytes of an HDF5 file tell: whether a writer has left it open, and where it should end."""

    open_for_writing: bool
    end: int


def superblock(path: Path) -> Superblock:
    """Read the first bytes of a trace (superblock version 3: open flags at byte 11, the end at byte 28)."""
    with path.open("rb") as file:
        head = file.read(36)
    if len(head) < 36 or head[8] != 3:
        return Superblock(False, 0)
    return Superblock(head[11] != 0, int.from_bytes(head[28:36], "little"))


def _is_cut(path: Path) -> bool:
    """Whether the end of the file is missing: in single-writer mode HDF5 reads zeros there without a word."""
    head = superblock(path)
    # the end in the header of a file that is open for writing, or was when its writer died, is an old one
    return not head.open_for_writing and head.end > path.stat().st_size


def _plain_file(path: Path) -> h5py.File | None:
    """A file of an older HDF5 version, which cannot be opened in single-writer mode: surely not a trace."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError:
        return None


def _check_format(file: h5py.File, path: Path) -> None:
    if _read_text(file, "format") != FORMAT:
        raise TraceError(f"{path} is an HDF5 file, but not a landscape trace")
    version = int(file.attrs.get("version", 0))
    if version > VERSION:
        raise TraceError(
            f"{path} is a trace of version {version}; this installation reads up to version {VERSION}: "
            "update landscape-engine"
        )


def read_header(file: h5py.File) -> Header:
    """The root attributes."""
    return Header(
        created=_read_text(file, "created"),
        uuid=_read_text(file, "uuid"),
        seed=int(file.attrs["seed"]),
        config=json.loads(_read_text(file, "config", "null")),
        environment=json.loads(_read_text(file, "environment", "{}")),
        periods=tuple(json.loads(_read_text(file, "periods", "[]"))),
        version=int(file.attrs["version"]),
        subject=json.loads(_read_text(file, "subject", "null")),
    )


def read_fields(group: h5py.Group) -> dict[str, Field]:
    """The fields of a table in the order of their declaration, without the columns that every table has."""
    return {name: _read_field(group, name) for name in json.loads(_read_text(group, "fields", "[]"))}


def _read_field(group: h5py.Group, name: str) -> Field:
    dataset = group[name]
    lead: tuple[int | None, ...] = (None,) if offsets_name(name) in group else ()
    shape = (*lead, *dataset.shape[1:])
    return Field(
        shape,
        str(dataset.dtype.str.lstrip("|")),
        _read_text(dataset, "units"),
        _read_text(dataset, "description"),
        tuple(json.loads(_read_text(dataset, "labels", "[]"))),
        tuple(json.loads(_read_text(dataset, "dims", "[]"))),
        tuple((tuple(names), tuple(shape)) for names, shape in json.loads(_read_text(dataset, "parts", "[]"))),
    )


def read_settings(group: h5py.Group) -> dict[str, Any] | None:
    """The settings that a table was declared with, None when it has none."""
    settings: dict[str, Any] | None = json.loads(_read_text(group, "settings", "null"))
    return settings


def count_rows(group: h5py.Group) -> int:
    """The rows that exist: those that `step` has."""
    return int(group["step"].shape[0])


def last_step(file: h5py.File, until: int | None = None) -> int | None:
    """The last step of a row, of those up to `until` if that is given; None without such rows."""
    steps = [group["step"][:] for group in tables(file)]
    kept = [int(s.max()) for s in (s if until is None else s[s <= until] for s in steps) if len(s)]
    return max(kept, default=None)


def last_time(file: h5py.File) -> float:
    """The seconds of writing that the last row was recorded after."""
    times = (float(group["time"][count_rows(group) - 1]) for group in tables(file) if count_rows(group))
    return max(times, default=0.0)


def tables(file: h5py.File) -> list[h5py.Group]:
    """All tables of a trace."""
    return [*(file[place] for place in (EVENTS, UNFINISHED) if place in file), *file["probes"].values()]


def read_column(group: h5py.Group, name: str, field: Field, rows: slice) -> Array:
    """Rows `rows` (a slice with both ends) of a field: `(T, ...)`; ragged as an object array `(T,)`."""
    dataset = group[name]
    if not field.ragged:
        return _decode(dataset[rows], field)
    ragged = np.empty(max(0, rows.stop - rows.start), dtype=object)
    if len(ragged):
        offsets = group[offsets_name(name)][rows.start : rows.stop + 1]
        flat = _decode(dataset[offsets[0] : offsets[-1]], field)
        for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
            ragged[i] = flat[start - offsets[0] : stop - offsets[0]]
    return ragged


def _decode(values: Array, field: Field) -> Array:
    return np.char.decode(values.astype(field.dtype), "utf-8") if field.is_string else values
