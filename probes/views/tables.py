"""Tables of a trace for the terminal: what is in it, and the measurements of each step with their errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from probes.instruments.registry import COST_NOTES, PROBES, Entry, import_from
from probes.numbers import plus_minus, short
from probes.trace.layout import COLUMNS
from probes.trace.state import state_of
from probes.views.cells import star
from probes.views.kinds import KINDS, kind_of, settings_text

if TYPE_CHECKING:
    from probes.trace.records import Records
    from probes.trace.trace import Trace

_STYLE = box.SIMPLE_HEAD


def table(title: str = "", caption: str = "") -> Table:
    """A table in the house style."""
    return Table(
        title=title or None,
        caption=caption or None,
        box=_STYLE,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        pad_edge=False,
    )


def steps_table(trace: Trace, last: int | None = None, *, width: int = 200) -> Group:
    """The measurements of each step: one row a step, values with their errors.

    `last` keeps the last rows alone. What does not fit `width` columns beside each other goes into a table below,
    for a number that is cut or folded cannot be read.
    """
    columns: dict[str, dict[int, str]] = {}
    notes: list[str] = []
    total, tail = _last_rows(trace, last)
    for records, entry, read in _ordered(trace, tail):
        for row, step in enumerate(read["step"]):
            values = {field: column[row] for field, column in read.items()}
            for heading, text in _cells(records.name, entry, values):
                columns.setdefault(heading, {})[int(step)] = text
        notes += _notes(records, entry, read)
    steps = sorted({step for cells in columns.values() for step in cells})
    if last is not None:
        steps = steps[-last:]
    if total > len(steps):
        notes.append(f"the last {len(steps)} of {total} steps")
    views = side_by_side(columns, steps, width)
    return Group(*views, *(Text(note, style="dim") for note in notes))


def side_by_side(
    columns: Mapping[str, Mapping[Any, str]],
    rows: Sequence[Any],
    width: int,
    corner: str = "step",
    justify: Literal["left", "right"] = "right",
) -> list[Table]:
    """The columns (heading -> row -> text) in as many tables as it takes for each to be at most `width` wide.

    Each has the rows' own column, under `corner`, and the rows of which it has a text.
    """
    padding = 3
    start = max([len(corner), *(len(str(row)) for row in rows)]) + padding
    parts: list[list[str]] = []
    used = width
    for heading, cells in columns.items():
        own = max(len(heading), *(len(cells.get(row, "")) for row in rows)) + padding
        if used + own > width:
            parts.append([])
            used = start
        parts[-1].append(heading)
        used += own
    views = []
    for headings in parts:
        view = table()
        for heading in (corner, *headings):
            view.add_column(Text(heading), justify=justify, no_wrap=True)
        for row in rows:
            texts = [columns[heading].get(row, "") for heading in headings]
            if any(texts):
                view.add_row(str(row), *texts)
        views.append(view)
    return views


def _last_rows(trace: Trace, last: int | None) -> tuple[int, dict[str, int]]:
    """How many steps there are, and for each group the first row that has one of the `last`: the rest is not read."""
    if last is None:
        return 0, {}
    steps = {name: trace[name]["step"] for name in trace}
    distinct = np.unique(np.concatenate([np.empty(0, np.int64), *steps.values()]))
    oldest = distinct[-last:][:1]
    first = {name: np.flatnonzero(own >= oldest) for name, own in steps.items()}
    return len(distinct), {name: int(rows[0]) if len(rows) else len(steps[name]) for name, rows in first.items()}


def _ordered(trace: Trace, start: Mapping[str, int]) -> list[tuple[Records, Entry | None, Mapping[str, Any]]]:
    """Each group with its entry and its columns from row `start` on: the loss first, what is not known last."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    groups = []
    for name in trace:
        records, columns = trace[name], trace[name].read(start.get(name, 0))
        kind = kind_of(columns, records.settings) or ""
        groups.append((places.get(kind, len(KINDS)), records, KINDS.get(kind), columns))
    return [group[1:] for group in sorted(groups, key=lambda group: group[0])]


def _cells(name: str, entry: Entry | None, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Heading and text of each column that one row of a group fills."""
    cells = () if entry is None else entry.cells
    if isinstance(cells, str):
        yield from import_from("probes.views", cells)(name, values)
        return
    for heading, field, error in cells:
        if error:
            yield f"{name}{heading}", plus_minus(float(values[field]), float(values[error])) + star(values)
        elif np.isfinite(values[field]):  # a threshold is not known without an optimizer
            yield f"{name}{heading}", short(float(values[field]))
    for field, value in {} if cells else values.items():
        if field not in COLUMNS and np.ndim(value) == 0:
            yield f"{name}: {field}", str(value) if isinstance(value, str) else short(float(value), 5)


def _notes(records: Records, entry: Entry | None, columns: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know about a column: what its error means, what a star says, what all rows amount to."""
    parts = [entry.note] if entry is not None and entry.note else []
    if "converged" in columns and not bool(np.all(columns["converged"])):
        parts.append("* had not converged when its products were spent")
    if parts:
        yield f"{records.name}: {'; '.join(parts)}"
    if entry is not None and entry.summary:
        yield f"{records.name}: {import_from('probes.views', entry.summary)(records)}"


def probes_table(width: int = 200) -> Group:
    """All probes: what they measure, need and cost, and where they come from."""
    columns = {
        heading: {name: str(getattr(entry, heading)) for name, entry in PROBES.items()}
        for heading in ("measures", "needs", "cost", "paper")
    }
    views = side_by_side(columns, list(PROBES), width, "probe", justify="left")
    return Group(*views, *(Text(note, style="dim") for note in COST_NOTES))


def overview(trace: Trace) -> Group:
    """What a trace is: its file, its origin, and the probes in it with their settings and costs."""
    facts: list[tuple[str, str]] = [
        ("file", f"{trace.path} (format version {trace.format_version})"),
        ("created", str(trace.created)),
        ("writer", _writer(trace)),
        ("seed", str(trace.seed)),
    ]
    if isinstance(trace.config, Mapping):
        facts += [(f"config.{key}", _plain(value)) for key, value in trace.config.items()]
    elif trace.config is not None:
        facts.append(("config", _plain(trace.config)))
    environment = trace.environment if isinstance(trace.environment, Mapping) else {}
    versions = ", ".join(f"{key} {_plain(value)}" for key, value in environment.items() if value is not None)
    facts.append(("environment", versions))
    head = Table.grid(padding=(0, 2))
    head.add_column()
    head.add_column(overflow="fold")  # a path that is cut cannot be copied
    for key, value in facts:
        head.add_row(Text(key, style="dim"), Text(value))
    probes = table()
    probes.add_column("probe")
    probes.add_column("rows", justify="right")
    probes.add_column("steps", justify="right")
    probes.add_column("seconds", justify="right")
    probes.add_column("settings")
    for name in trace:
        records = trace[name]
        steps, cost = records["step"], records["cost"]
        span = f"{steps.min()} .. {steps.max()}" if len(steps) > 1 else ", ".join(map(str, steps))
        probes.add_row(name, str(len(steps)), span, short(float(cost.sum()), 3), settings_text(records.settings))
    parts: list[RenderableType] = [head, Text(), probes]
    events = trace.events.read()
    if len(events["step"]):
        parts += [Text(), events_table(events)]
    return Group(*parts)


def _writer(trace: Trace) -> str:
    state = state_of(trace.path)
    if state.kind == "live":
        return "writing" + (f" (process {state.process})" if state.process else "")
    return "closed" if state.kind == "closed" else "gone without closing the file; Trace.resume goes on with it"


def events_table(events: Mapping[str, Any], last: int = 5) -> Table:
    """The last events: what failed or was skipped, and why."""
    total = len(events["step"])
    view = table(title=f"events ({min(last, total)} of {total})")
    for heading in ("step", "probe", "reason"):
        view.add_column(heading)
    for row in range(max(0, total - last), total):
        view.add_row(str(events["step"][row]), str(events["probe"][row]), str(events["reason"][row]))
    return view


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
