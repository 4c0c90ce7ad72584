"""Building a trace file beside the one it replaces, and letting go of one without touching the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from probes.errors import one_line
from probes.trace.disk import check_room, disconnect, sync_folder
from probes.trace.layout import (
    COLUMNS,
    LIBVER,
    Array,
    Field,
    Header,
    TraceError,
    create_table,
    offsets_name,
    place_of,
    write_at,
    write_header,
)
from probes.trace.reader import count_rows
from probes.trace.table import Table

ROOM = 512 << 10  # bytes for metadata: what a flush adds beside its rows, and what closing needs


class OpenFile(NamedTuple):
    """An open file: looked up once, because HDF5 takes longer to find a dataset than to write a row to it."""

    file: h5py.File
    descriptor: int
    identity: os.stat_result
    datasets: dict[str, dict[str, h5py.Dataset]]


def build(
    path: Path, header: Header, tables: Mapping[str, Table], *, old: h5py.File | None, until: int | None, replace: bool
) -> OpenFile:
    """A new file in single-writer mode, put under the name `path` when it is complete.

    It has all tables, and the rows of `old` with step <= `until`; each table is told how many it has now.
    `replace`: a file of that name may be replaced. Raises `TraceError`, and leaves everything as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    opened: OpenFile | None = None
    try:
        partial.unlink(missing_ok=True)
        check_room(path.parent, ROOM + (old.id.get_filesize() if old is not None else 0))
        file = h5py.File(partial, "w", libver=LIBVER, locking=False)
        descriptor = int(file.id.get_vfd_handle())
        opened = OpenFile(file, descriptor, os.fstat(descriptor), {})
        write_header(file, header)
        file.create_group("probes")
        for name, table in tables.items():
            group = create_table(file, name, table.fields, table.settings)
            place = place_of(name)
            if old is not None and place in old:
                copy_rows(old[place], group, table.fields, until)
            table.count(group)
            opened.datasets[name] = dict(group.items())
        file.flush()
        file.swmr_mode = True
        os.fsync(descriptor)
        _publish(partial, path, replace)
        return opened
    except BaseException as error:
        if opened is not None:
            abandon(opened)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, TraceError) or not isinstance(error, OSError | RuntimeError):
            raise
        raise TraceError(f"cannot write {path}: {reason_of(error)}") from None


def _publish(partial: Path, path: Path, replace: bool) -> None:
    if replace:
        os.replace(partial, path)
    else:
        try:
            os.link(partial, path)  # unlike a rename it refuses to take an existing name
        except FileExistsError:
            raise refusal(path) from None
        except OSError:  # a file system without hard links
            if path.exists():
                raise refusal(path) from None
            os.replace(partial, path)
        else:
            partial.unlink()
    sync_folder(path.parent)


def refusal(path: Path) -> TraceError:
    """The error of writing over a file that nobody said may be replaced."""
    return TraceError(f"{path} exists; pass overwrite=True to replace it, or Trace.resume to go on with it")


def abandon(opened: OpenFile) -> None:
    """Close a file without touching the disk again."""
    detach(opened)
    with contextlib.suppress(Exception):
        opened.file.close()


def detach(opened: OpenFile) -> None:
    """Let nothing that HDF5 still does with an open file reach the disk."""
    with contextlib.suppress(OSError):
        # once it is closed, the number of its descriptor may belong to another file
        if os.path.samestat(os.fstat(opened.descriptor), opened.identity):
            disconnect(opened.descriptor)


def reason_of(error: BaseException) -> str:
    """The system's reason for a failed write, in a few words."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    text = one_line(error)
    # HDF5 buries the system's reason in the middle of a long line
    return text.split("error message = '", 1)[1].split("'", 1)[0] if "error message = '" in text else text[:200]


_COPY_BYTES = 32 << 20


def copy_rows(source: h5py.Group, target: h5py.Group, fields: Mapping[str, Field], until: int | None) -> None:
    """Append the rows of `source` with step <= `until` (None: all of them) to the empty table `target`."""
    everything = {**fields, **COLUMNS}
    rows = count_rows(source)
    block = max(1, _COPY_BYTES // sum(field.row_bytes for field in everything.values()))
    for start in range(0, rows, block):
        part = slice(start, min(start + block, rows))
        keep = np.ones(part.stop - part.start, dtype=bool)
        if until is not None:
            keep = source["step"][part] <= until
        for name, field in everything.items():
            _copy_block(source, target, name, field, part, keep)


def _copy_block(source: h5py.Group, target: h5py.Group, name: str, field: Field, part: slice, keep: Array) -> None:
    if not field.ragged:
        write_at(target[name], target[name].shape[0], source[name][part][keep])
        return
    offsets = source[offsets_name(name)][part.start : part.stop + 1]
    lengths = np.diff(offsets)
    flat = source[name][offsets[0] : offsets[-1]][np.repeat(keep, lengths)]
    ends = target[name].shape[0] + np.cumsum(lengths[keep])
    write_at(target[name], target[name].shape[0], flat)
    write_at(target[offsets_name(name)], target[offsets_name(name)].shape[0], ends)
