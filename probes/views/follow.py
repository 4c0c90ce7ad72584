"""A trace while it is written: which records are new, and what becomes of the writer.

The writer may put another file under the name at any time: when a probe is declared, and when the trace is
resumed, where records after some step are dropped. A record's `time` only grows, also across these, so that in
a changed file the new records are those with a later time than the last one seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import typer
from rich.console import Console
from rich.live import Live

from probes.errors import UserError
from probes.numbers import short
from probes.trace.columns import split_columns
from probes.trace.layout import COLUMNS, TraceError
from probes.trace.lock import holder_of
from probes.trace.reader import read_header
from probes.trace.records import Records
from probes.trace.state import state_of
from probes.trace.trace import Trace
from probes.views.tables import overview, steps_table


class Measurement(NamedTuple):
    """One record: the probe's name, step and time, and its fields as flat columns."""

    time: float
    probe: str
    step: int
    values: Mapping[str, Any]


class Follower:
    """Looks at a trace again and again: `poll` gives what is new. Raises `TraceError` for what is no trace.

    Attributes:
        trace: open for reading.
        note: what the last poll noticed besides records: another trace under the name; "" for nothing.
    """

    def __init__(self, path: Path) -> None:
        self.trace = Trace.open(path)
        self.note = ""
        self._rows: dict[str, int] = {}
        self._times: dict[str, float] = {}
        self._inode: tuple[int, int] | None = None
        self._uuid = ""

    def poll(self, last: int | None = None) -> list[Measurement]:
        """The records since the last poll, in the order of their times; of each probe at most the `last`.

        All are of one moment. Raises `TraceError` when the trace cannot be read.
        """
        found: list[Measurement] = []
        with self.trace.reading() as file:
            self._look(file)
            for name in file["probes"]:
                found += self._new(file, name, last)
        return sorted(found, key=lambda record: record.time)

    def _look(self, file: h5py.File) -> None:
        """Notice another file under the name."""
        status = os.fstat(file.id.get_vfd_handle())
        inode, uuid = (status.st_dev, status.st_ino), read_header(file).uuid
        self.note = ""
        if self._uuid not in ("", uuid):
            self.note = f"{self.trace.path} was replaced by a new trace"
            self._rows, self._times = {}, {}
        elif self._inode not in (None, inode):
            for name, seen in self._times.items():
                times = file[f"probes/{name}/time"][:] if name in file["probes"] else np.empty(0)
                self._rows[name] = int(np.searchsorted(times, seen, side="right"))
        self._inode, self._uuid = inode, uuid

    def _new(self, file: h5py.File, name: str, last: int | None) -> Iterator[Measurement]:
        records = Records(name, f"/probes/{name}", lambda: nullcontext(file))
        seen = self._rows.get(name, 0)
        if last is not None:
            seen = max(seen, len(records) - last)
        columns = records.read(seen)
        # one open file can be of two moments: `time` read early (in `_look`), `step` after another flush
        count = min(len(column) for column in columns.values())
        self._rows[name] = seen + count
        if not count:
            return
        self._times[name] = float(columns["time"][count - 1])
        flat = split_columns(columns, records.fields)
        for row in range(count):
            values = {field: column[row] for field, column in flat.items() if field not in COLUMNS}
            yield Measurement(float(columns["time"][row]), name, int(columns["step"][row]), values)


def follow(path: Path, console: Console, notes: Console, *, last: int, interval: float) -> None:
    """Show the measurements as they reach the disk, until the writer is done.

    On a terminal: the overview, and a table of the last steps that is kept up to date; else a line for each
    measurement, the `last` ones of each probe first. Returns when the writer has closed the trace, which is said
    on `notes`; raises `UserError` when it is gone without closing it, or the file is.
    """
    follower = Follower(path)
    path = follower.trace.path  # links resolved: the lock is beside the file itself
    if console.is_terminal:
        console.print(overview(follower.trace))
        last = min(last, max(3, console.height - 12))  # what does not fit the screen would be cut off below
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        first = True
        while True:
            state = state_of(path) if path.exists() else None  # before reading: what came before the end is read
            try:
                new = follower.poll(last if first or live else None)
            except TraceError:
                if path.exists() or first:
                    raise
                new = []  # the writer puts a removed file back with its next record
            if follower.note:
                notes.print(follower.note, soft_wrap=True, markup=False)
            if live is not None and (new or first):
                live.update(steps_table(follower.trace, last, width=console.width), refresh=True)
            elif live is None:
                for record in new:
                    typer.echo(line_of(record))
            if state is None and not holder_of(path)[0]:
                raise UserError(f"{path} was removed, and nobody writes it any more")
            if state is not None and state.kind != "live":
                break
            first = False
            time.sleep(interval)
    if state.kind == "crashed":
        raise UserError(
            f"the writer of {path} is gone without closing it; what it had flushed is whole, Trace.resume goes on"
        )
    notes.print(f"{path} was closed by its writer", soft_wrap=True, markup=False)


def line_of(record: Measurement, most: int = 6) -> str:
    """A measurement as one line: step, probe, and the first fields; how many more entries there are.

    What is nan is not shown, except in front: nan is what was not asked for, but also the value of a diverged run.
    """
    fields = list(record.values.items())
    shown = fields[:1] + [(name, value) for name, value in fields[1:] if not _is_nan(value)]
    texts = [f"{name}={_text(value)}" for name, value in shown[:most]]
    more = len(fields) - len(texts)
    return f"{record.step:>8}  {record.probe}  " + " ".join(texts) + (f" (+{more})" if more > 0 else "")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"[{len(value)}]"
    return short(float(value), 5) if isinstance(value, np.floating) else str(value)
