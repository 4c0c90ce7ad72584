"""Trace: what the probes of one run saw, in an HDF5 file that is readable while it grows and after a crash.

The layout of the file is described in `probes.trace.layout`. This module does not import torch.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py

from probes.trace.frames import tree_of
from probes.trace.layout import EVENT_FIELDS, EVENTS, Field, Header, Settings, TraceError, is_place, place_of, to_json
from probes.trace.reader import open_for_reading, read_header
from probes.trace.records import Records
from probes.trace.state import check_whole, state_of
from probes.trace.table import Table, check_names, truncate
from probes.trace.writer import WRITERS, Writer

if TYPE_CHECKING:
    import pandas
    import xarray


class Trace:
    """A trace file, open for reading or for writing: made by `Trace.create`, `Trace.open` or `Trace.resume`.

    Attributes:
        path: the file, absolute, links resolved.
        mode: "write" or "read".
        closed: whether `close` was called.

    Example:
        >>> from probes import Field, Trace
        >>> with Trace.create("run.h5", config={"lr": 0.1}, seed=0) as trace:
        ...     trace.declare("loss", {"value": Field(units="nats")})
        ...     trace.record("loss", step=0, value=2.5)
        >>> Trace.open("run.h5")["loss"]["value"]
        array([2.5])
    """

    def __init__(self, path: Path, writer: Writer | None) -> None:
        self.path = path
        self.mode: Literal["write", "read"] = "read" if writer is None else "write"
        self._writer = writer
        self.closed = False
        self._before_close: list[Callable[[], None]] = []
        if writer is not None:
            weakref.finalize(self, writer.close_quietly)  # also at exit

    # -- opening ---------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, config: Any = None, seed: int | None = None, overwrite: bool = False
    ) -> Trace:
        """A new trace, for writing. The file is there, whole and readable, when this returns.

        `config` is kept as JSON (what JSON does not know, as its str()); `seed` (0 <= seed < 2**63) is what
        the generators of the measurements derive from, drawn from the system when None, and kept.
        Raises `TraceError` when the file exists (unless `overwrite`), when a live writer has it, or when it
        cannot be written; `ValueError` for a config or a seed that cannot be kept.
        """
        path = _resolve(path)
        return cls(path, Writer.create(path, config, seed, overwrite=overwrite))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Trace:
        """A trace for reading, also while it is written: every access shows what has been flushed by then.

        Raises `TraceError` when there is no such file, when it is not a trace, damaged, or too new.
        """
        trace = cls(_resolve(path), None)
        with trace.reading() as file:
            if state_of(trace.path).kind == "crashed":
                check_whole(file, trace.path)
            return trace

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, step: int | None = None) -> Trace:
        """Go on writing a trace, after a clean close or a crash; identity, seed and config stay.

        With `step`, records of later steps (and events) are dropped: pass the step of the checkpoint that
        training goes on from. The file is rewritten beside the old one, which it replaces when complete, so
        the disk needs room for both. Raises `TraceError` as `open` does, and when a live writer has it.
        """
        path = _resolve(path)
        cls.open(path)  # what is not a trace, or not a whole one, is refused before anything is made
        return cls(path, Writer.resume(path, step))

    # -- writing ---------------------------------------------------------------------------------------------

    def declare(self, name: str, fields: Mapping[str, Field], *, settings: Settings | None = None) -> None:
        """Say what the records of `name` hold; `settings` tell how they were measured and are kept with them.

        The same name with the same fields and settings may be declared again. Before the first record this is
        cheap; later it rewrites the file, which takes some seconds per GB.
        Raises `ValueError` for other fields or settings under a known name (it shows both) and for bad names.
        """
        writer = self._require_writer()
        check_names(name, fields)
        settings = json.loads(to_json(settings, f"the settings of {name}"))  # as a file gives them back
        if name in writer.tables:
            writer.tables[name].check_same(fields, settings)
        else:
            writer.declare(Table(name, fields, settings))

    def describe(self, subject: Mapping[str, Any]) -> None:
        """Say what is measured: model, parameters, loss, data. Whoever says it first is heard; it is kept as JSON."""
        self._require_writer().describe(subject)

    def declared(self, name: str) -> dict[str, Field] | None:
        """The fields declared for `name` in a trace being written, without looking into the file; None for none."""
        table = self._require_writer().tables.get(name)
        return None if table is None else dict(table.fields)

    def record(self, name: str, step: int, *, epoch: float | None = None, cost: float = 0.0, **fields: Any) -> None:
        """Add a row: one value per declared field (numbers, sequences, arrays, CPU or GPU tensors, strings).

        `cost` is in seconds. The row is buffered; it reaches the file at `flush`, at `close` and within a
        second. Raises `ValueError` or `TypeError` naming the field that does not fit (the row is not kept),
        `KeyError` for a name that was not declared, and `TraceError` when rows cannot be written: on a full
        disk they wait in memory and are tried again once a second.
        """
        writer = self._require_writer()
        if name not in writer.tables or is_place(name):
            raise KeyError(f"{name!r} was not declared; call trace.declare({name!r}, fields) first")
        writer.append(name, step, epoch, cost, fields)

    def event(self, step: int, probe: str, reason: str, *, epoch: float | None = None) -> None:
        """Add a row to `/events`: what happened to a probe. Texts are cut to 64 and 400 bytes."""
        texts = {"probe": probe, "reason": reason}
        values = {name: truncate(text, EVENT_FIELDS[name]) for name, text in texts.items()}
        self._require_writer().append(EVENTS, step, epoch, 0.0, values)

    def flush(self) -> None:
        """Hand all records to the system: they survive the death of this process. Nothing to do when reading.

        Raises `TraceError` when they cannot be written.
        """
        if self._writer is not None:
            self._writer.flush()

    def before_close(self, write: Callable[[], None]) -> None:
        """Have `write()` called when the trace is closed, for what is still to be recorded then."""
        self._before_close.append(write)

    def close(self) -> None:
        """Flush and close; the file can then be opened by any HDF5 viewer. Called again, it does nothing.

        Raises `TraceError` when records could not be written; the file is closed nevertheless.
        """
        if self._writer is not None:
            try:
                while self._before_close:
                    self._before_close.pop(0)()
            finally:
                self.closed = True
                self._writer.close()
        self.closed = True

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(TraceError) if kind is not None else nullcontext():
            self.close()

    # -- reading: every access shows what has been flushed by then --------------------------------------------

    @property
    def broken(self) -> bool:
        """Whether writing failed for good, so that no record is taken any more (a full disk may clear)."""
        return self._writer is not None and self._writer.broken is not None

    @property
    def format_version(self) -> int:
        """The version of the file's format."""
        return self._header().version

    @property
    def created(self) -> str:
        """When the trace was created: ISO 8601, UTC."""
        return self._header().created

    @property
    def uuid(self) -> str:
        """The identity of the trace; it stays when the trace is resumed."""
        return self._header().uuid

    @property
    def seed(self) -> int:
        """What the generators of the measurements derive from."""
        return self._header().seed

    @property
    def config(self) -> Any:
        """The configuration given to `create`, as JSON keeps it."""
        return self._header().config

    @property
    def subject(self) -> dict[str, Any]:
        """What was measured, as the first probe found it: model, parameters, loss, data; empty where none has."""
        return dict(self._header().subject or {})

    @property
    def environment(self) -> dict[str, Any]:
        """Python, system and package versions at creation."""
        return self._header().environment

    @property
    def periods(self) -> list[dict[str, Any]]:
        """One entry per period of writing: start (ISO 8601), step (the last one before it), environment."""
        return list(self._header().periods)

    @property
    def events(self) -> Records:
        """The rows of `/events`: fields probe and reason."""
        return Records("events", EVENTS, self.reading)

    def keys(self) -> list[str]:
        """The names of the groups of records, sorted."""
        if self._writer is not None and not self._writer.closed:
            return sorted(name for name in self._writer.tables if not is_place(name))
        with self.reading() as file:
            return sorted(file["probes"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Records:
        names = self.keys()
        if name not in names:
            raise KeyError(f"{self.path.name} has no records {name!r}; it has {', '.join(names) or 'none'}")
        return Records(name, place_of(name), self.reading)

    def to_xarray(self) -> xarray.DataTree:
        """All records as a tree: a Dataset per group under its name (see `Records.to_xarray`), identity as attributes.

        Raises `MissingExtra` when xarray is not installed.
        """
        header = self._header()
        identity = {"file": str(self.path), "config": json.dumps(header.config)}
        identity |= {name: getattr(header, name) for name in ("uuid", "created", "seed")}
        return tree_of(identity, {name: self[name].to_xarray() for name in self})

    def to_pandas(self) -> dict[str, pandas.DataFrame]:
        """All records as frames: name of the group -> DataFrame (see `Records.to_pandas`).

        Raises `MissingExtra` when pandas is not installed.
        """
        return {name: self[name].to_pandas() for name in self}

    def __repr__(self) -> str:
        return f"Trace({str(self.path)!r}, mode={self.mode!r}{', closed' if self.closed else ''})"

    def _header(self) -> Header:
        if self._writer is not None:
            return self._writer.header
        with self.reading() as file:
            return read_header(file)

    @contextmanager
    def reading(self) -> Iterator[h5py.File]:
        """The file, open as long as the block lasts: the writer's own in its process.

        HDF5 cannot open a file a second time in the process that writes it.
        """
        writer = self._writer if self._writer is not None else WRITERS.get(self.path)
        if writer is None or not writer.readable:
            with open_for_reading(self.path) as file:
                yield file
        else:
            with writer.mutex:
                if writer is self._writer:
                    writer.flush()
                yield writer.file

    def _require_writer(self) -> Writer:
        if self._writer is None:
            raise TraceError(f"{self.path} is open for reading; Trace.resume opens it for writing")
        return self._writer


def _resolve(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))
