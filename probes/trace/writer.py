"""The one writer of a trace file: buffers records, flushes them, and survives what can happen to a disk.

The file is in HDF5's single-writer mode (SWMR) from its first moment under its name, so that others can read
it and a killed process leaves it whole. Nothing may be created in that mode; a declaration after the start
therefore builds a new file beside the old one, copies the rows and takes its place in one `os.replace`.
"""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from probes.errors import TraceWarning
from probes.trace.build import ROOM, abandon, build, detach, reason_of, refusal
from probes.trace.disk import make_room, trim
from probes.trace.layout import EVENT_FIELDS, EVENTS, UNFINISHED, Array, Header, TraceError, to_json, write_at
from probes.trace.lock import WriterLock
from probes.trace.reader import last_step, last_time, open_for_reading, read_header
from probes.trace.table import Table, read_table

FLUSH_SECONDS = 1.0
FLUSH_BYTES = 16 << 20
_MOST_WAITING = 64 << 20  # bytes of records kept while a full disk refuses them

WRITERS: weakref.WeakValueDictionary[Path, Writer] = weakref.WeakValueDictionary()


class Writer:
    """Writes one file. `tables` maps "/events" and the names of the probes to their tables.

    `source` is an open file whose rows are taken over (up to step `until`), `replace` whether a file of this name may
    be replaced, `start` the seconds of writing that came before. The caller hands over `lock`, which `close` releases.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        lock: WriterLock,
        tables: Mapping[str, Table],
        *,
        source: h5py.File | None = None,
        until: int | None = None,
        replace: bool = False,
        start: float = 0.0,
    ) -> None:
        self.path = path
        self.header = header
        self.tables: dict[str, Table] = {EVENTS: Table("events", EVENT_FIELDS), **tables}
        self.closed = False
        self.broken: str | None = None
        self.mutex = threading.RLock()
        self._lock = lock
        self._pid = os.getpid()
        self._began = time.monotonic() - start
        self._last_flush = time.monotonic()
        self._timer: threading.Timer | None = None
        self._flushing = self._orphaned = False
        self._behind = False  # the file does not have yet all that was declared
        self._open = build(path, header, self.tables, old=source, until=until, replace=replace)
        WRITERS[path] = self

    @classmethod
    def create(cls, path: Path, config: Any, seed: int | None, *, overwrite: bool) -> Writer:
        """The writer of a new trace: see `Trace.create`."""
        header = Header.new(config, seed)
        if path.exists() and not overwrite:
            raise refusal(path)
        with _lock(path) as lock:
            return cls(path, header, lock, {}, replace=overwrite)

    @classmethod
    def resume(cls, path: Path, until: int | None) -> Writer:
        """The writer that goes on with a trace after its records of step `until`: see `Trace.resume`."""
        with _lock(path) as lock, open_for_reading(path) as file:
            tables = {name: read_table(group) for name, group in file["probes"].items()}
            tables |= {place: read_table(file[place]) for place in (UNFINISHED,) if place in file}
            header = read_header(file).resume(last_step(file, until))
            return cls(path, header, lock, tables, source=file, until=until, replace=True, start=last_time(file))

    # -- records ---------------------------------------------------------------------------------------------

    def declare(self, table: Table) -> None:
        """Add a table. It is in the file after the next flush."""
        self._check_usable()
        with self.mutex:
            self.tables[table.name] = table
            self._behind = True

    def describe(self, subject: Mapping[str, Any]) -> None:
        """Say what is measured, where nothing has said so yet. It is in the file after the next flush."""
        self._check_usable()
        with self.mutex:
            if self.header.subject is None:
                self.header = replace(self.header, subject=json.loads(to_json(subject, "subject")))
                self._behind = True

    def append(self, name: str, step: int, epoch: float | None, cost: float, values: Mapping[str, Any]) -> None:
        """Keep one row, and flush when a second has gone by since the last flush."""
        self._check_usable()
        with self.mutex:
            table = self.tables[name]
            if table.nbytes > _MOST_WAITING:
                self.flush()  # the disk is full: raises, or there is room again
            now = time.monotonic()
            table.append(step, epoch, now - self._began, cost, values)
            if now - self._last_flush >= FLUSH_SECONDS or table.nbytes > FLUSH_BYTES:
                self.flush()
            elif self._timer is None:
                # a burst followed by silence: the last rows must not wait for the next record
                self._timer = threading.Timer(FLUSH_SECONDS, self._flush_later)
                self._timer.start()

    def _flush_later(self) -> None:
        with self.mutex:
            self._timer = None
            if not self.closed and self.broken is None:
                with suppress(TraceError):  # whoever records or closes next is told
                    self.flush()
                if self._orphaned:
                    self.close_quietly()

    def flush(self) -> None:
        """Hand all waiting rows to the system: they survive the death of the process.

        Raises `TraceError`. After a full disk the rows are kept and tried again by the next flush.
        """
        self._check_usable()
        with self.mutex:
            self._last_flush = time.monotonic()
            self._flushing = True
            try:
                self._flush()
            finally:
                self._flushing = False

    def _flush(self) -> None:
        self._check_place()
        if self._behind:
            self._rebuild()
        waiting = {name: table for name, table in self.tables.items() if table.waiting}
        if not waiting:
            return
        batches = {name: table.batch() for name, table in waiting.items()}
        chunks = sum(len(batch) for batch in batches.values()) << 14
        self._make_room(sum(table.nbytes for table in waiting.values()) + chunks)
        try:
            self._write(batches)
        except (OSError, RuntimeError, ValueError) as error:
            self.broken = (
                f"cannot write {self.path}: {reason_of(error)}; it is whole up to the last flush: "
                "repair the disk, then Trace.resume"
            )
            abandon(self._open)
            raise TraceError(self.broken) from None
        for name, table in waiting.items():
            table.forget(batches[name])

    def _write(self, batches: Mapping[str, Mapping[str, tuple[int, Array]]]) -> None:
        for name, batch in batches.items():
            for dataset, (start, values) in batch.items():
                if dataset != "step":
                    write_at(self._open.datasets[name][dataset], start, values)
        self._open.file.flush()
        for name, batch in batches.items():
            write_at(self._open.datasets[name]["step"], *batch["step"])
        self._open.file.flush()

    def _rebuild(self) -> None:
        """Move to a new file that has all tables; the old one stays in use when that fails."""
        before = self._open
        self._open = build(self.path, self.header, self.tables, old=before.file, until=None, replace=True)
        self._behind = False
        abandon(before)

    def _make_room(self, size: int) -> None:
        try:
            make_room(self._open.descriptor, size + ROOM)
        except OSError as error:
            rows = sum(table.waiting for table in self.tables.values())
            raise TraceError(
                f"cannot write {self.path}: {reason_of(error)}; {rows} records wait in memory for room"
            ) from None

    def _check_place(self) -> None:
        """The file under our name must be ours: put it back when it was removed, refuse another's."""
        try:
            ours = os.path.samestat(os.stat(self.path), self._open.identity)
        except FileNotFoundError:
            self._rebuild()
            warnings.warn(
                f"{self.path} was removed while it was written; it is written again", TraceWarning, stacklevel=4
            )
            return
        except OSError as error:
            raise TraceError(f"cannot write {self.path}: {reason_of(error)}") from None
        if not ours:
            raise TraceError(f"{self.path} was replaced by another file while it was written; move that away")

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise TraceError(f"{self.path} is written by the process that opened it, not by a fork of it")
        if self.closed:
            raise TraceError(f"{self.path} is closed; Trace.resume goes on with it")
        if self.broken is not None:
            raise TraceError(self.broken)

    @property
    def file(self) -> h5py.File:
        """The open file."""
        return self._open.file

    @property
    def readable(self) -> bool:
        """Whether `file` can be read from: it is open, in the process that opened it."""
        return not self.closed and self.broken is None and self._pid == os.getpid()

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Flush, close the file, let others write it. Raises `TraceError` when rows could not be written."""
        if self.closed or self._pid != os.getpid():
            return
        with self.mutex:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            try:
                if self.broken is None:
                    self.flush()
            except TraceError as error:
                rows = sum(table.waiting for table in self.tables.values())
                raise TraceError(f"{error}; {rows} records are lost") from None
            finally:
                self.closed = True
                try:
                    if self.broken is None:
                        self._finish()
                finally:
                    self._lock.release()

    def _finish(self) -> None:
        try:
            self._open.file.close()
        except (OSError, RuntimeError) as error:
            abandon(self._open)
            raise TraceError(f"cannot close {self.path}: {reason_of(error)}") from None
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), self._open.identity):
                trim(self.path)

    def close_quietly(self) -> None:
        """At exit, or when the trace is garbage: nobody is there to be told."""
        # The garbage collector may call this in the middle of a flush, or in a thread that holds h5py's lock
        # while another one flushes: then the flush goes first, and closes.
        if self._pid != os.getpid() or not self.mutex.acquire(blocking=False):
            self._orphaned = True
            return
        try:
            self._orphaned = True
            if not self._flushing:
                with suppress(TraceError):
                    self.close()
        finally:
            self.mutex.release()


@contextmanager
def _lock(path: Path) -> Iterator[WriterLock]:
    """The lock of a trace, for a writer to keep; released when the block fails to make one."""
    lock = WriterLock(path)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _after_fork() -> None:
    """In the child: its exit must not touch the parent's file."""
    for writer in list(WRITERS.values()):
        if not writer.closed:
            detach(writer._open)


os.register_at_fork(after_in_child=_after_fork)
