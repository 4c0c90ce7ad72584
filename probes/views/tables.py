"""Tables of a trace for the terminal: what is in it, and the measurements of each step with their errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from probes.instruments.entry import Entry
from probes.instruments.registry import COST_NOTES, PROBES
from probes.numbers import plus_minus, short
from probes.trace.layout import COLUMNS
from probes.trace.state import state_of
from probes.trace.trace import Trace
from probes.trace.unfinished import told_unfinished
from probes.views import cells as views_cells
from probes.views.cells import star
from probes.views.kinds import KINDS, function_of, kind_of, settings_text
from probes.views.notes import notes_on

if TYPE_CHECKING:
    from probes.trace.records import Records

_UNKNOWN = Entry(measures="", needs="", cost="", fields="", picture="")


def table(*headings: str, title: str = "", caption: str = "") -> Table:
    """A table in the house style."""
    return Table(
        *headings,
        title=title or None,
        caption=caption or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        pad_edge=False,
    )


def tell_measured(output: Path, measured: int, console: Console, notes: Console) -> None:
    """What `landscape probe` says at its end: the steps on the console, and on a terminal what to do next."""
    with Trace.open(output) as trace:
        console.print(steps_table(trace, width=console.width))
    if notes.is_terminal:  # quiet in a pipe
        what = f"written to {output}" if measured else f"nothing to do, {output} has every measurement already"
        notes.print(f"{what}; next: landscape show {output}, landscape plot {output}", soft_wrap=True)


def tell_drawn(output: Path, measured: int, console: Console, notes: Console) -> None:
    """What `landscape surface` and `landscape connect` say at their end: the same, and where the pictures are."""
    from probes.views.pictures.draw import plot_trace

    tell_measured(output, measured, console, notes)
    with Trace.open(output) as trace:
        for path in plot_trace(trace, output.parent, prefix=output.stem):
            console.print(path, soft_wrap=True, markup=False)


def steps_table(trace: Trace, last: int | None = None, *, width: int = 200) -> Group:
    """The measurements of each step: one row a step, values with their errors.

    `last` keeps the last rows alone. What does not fit `width` columns beside each other goes into a table below,
    for a number that is cut or folded cannot be read.
    """
    columns: dict[str, dict[int, str]] = {}
    notes: list[str] = []
    total, tail = _last_rows(trace, last)
    for records, entry, read in ordered(trace, tail):
        settings = records.settings
        for row, step in enumerate(read["step"]):
            values = {field: column[row] for field, column in read.items()}
            for heading, text in cells_of(records.name, entry, settings, values):
                columns.setdefault(heading, {})[int(step)] = text
        notes += notes_on(records, entry, read)
    steps = sorted({step for cells in columns.values() for step in cells})
    if last is not None:
        steps = steps[-last:]
    if total > len(steps):
        notes.append(f"the last {len(steps)} of {total} steps")
    return with_notes(side_by_side(columns, steps, width), notes)


def with_notes(views: Iterable[RenderableType], notes: Iterable[str]) -> Group:
    """The views below each other, and the notes below them."""
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


def ordered(trace: Trace, start: Mapping[str, int]) -> list[tuple[Records, Entry, Mapping[str, Any]]]:
    """Each group with its entry and its columns from row `start` on: the loss first, what is not known last."""
    places = list(KINDS.values())
    groups = []
    for name in trace:
        records, columns = trace[name], trace[name].read(start.get(name, 0))
        groups.append((records, KINDS.get(kind_of(columns, records.settings) or "", _UNKNOWN), columns))
    return sorted(groups, key=lambda group: places.index(group[1]) if group[1] in places else len(places))


def cells_of(
    name: str, entry: Entry, settings: Mapping[str, Any] | None, values: Mapping[str, Any]
) -> views_cells.Cells:
    """Heading and text of each column that one row of the group of that name fills."""
    if function := function_of(entry, "cells", views_cells):
        yield from function(name, values, settings or {})
        return
    for heading, field, error in entry.cells:
        if error:
            yield f"{name}{heading}", plus_minus(float(values[field]), float(values[error])) + star(values)
        elif np.isfinite(values[field]):  # a threshold is not known without an optimizer
            yield f"{name}{heading}", short(float(values[field]))
    for field, value in {} if entry.cells else values.items():
        if field not in COLUMNS and np.ndim(value) == 0:
            yield f"{name}: {field}", str(value) if isinstance(value, str) else short(float(value), 5)


def probes_table(width: int = 200) -> Group:
    """All probes: what they measure, need and cost, and where they come from."""
    columns = {
        heading: {name: str(getattr(entry, heading)) for name, entry in PROBES.items()}
        for heading in ("measures", "needs", "cost", "paper")
    }
    return with_notes(side_by_side(columns, list(PROBES), width, "probe", justify="left"), COST_NOTES)


def overview(trace: Trace) -> Group:
    """What a trace is: its file, its origin, and the probes in it with their settings and costs."""
    config = {} if trace.config is None else trace.config
    told = (
        {f"config.{key}": value for key, value in config.items()} if isinstance(config, Mapping) else {"config": config}
    )
    environment = trace.environment if isinstance(trace.environment, Mapping) else {}
    facts = {
        "file": f"{trace.path} (format version {trace.format_version})",
        "created": trace.created,
        "writer": writer_text(trace),
        "seed": trace.seed,
        **told,
        "environment": ", ".join(
            f"{key} {plain_text(value)}" for key, value in environment.items() if value is not None
        ),
    }
    head = Table.grid(padding=(0, 2))
    head.add_column()
    head.add_column(overflow="fold")  # a path that is cut cannot be copied
    for key, value in facts.items():
        head.add_row(Text(key, style="dim"), Text(plain_text(value)))
    probes = table("probe", "rows", "steps", "seconds", "settings")
    for column in probes.columns[1:4]:
        column.justify = "right"
    for name in trace:
        records = trace[name]
        steps, cost = records["step"], records["cost"]
        span = f"{steps.min()} .. {steps.max()}" if len(steps) > 1 else ", ".join(map(str, steps))
        probes.add_row(name, str(len(steps)), span, short(float(cost.sum()), 3), settings_text(records.settings))
    parts: list[RenderableType] = [head, Text(), probes]
    parts += [Text(text) for text in told_unfinished(trace)]
    events = trace.events.read()
    if len(events["step"]):
        parts += [Text(), events_table(events)]
    return Group(*parts)


def writer_text(trace: Trace) -> str:
    """What became of who writes it."""
    state = state_of(trace.path)
    if state.kind == "live":
        return "writing" + (f" ({state.owner})" if state.owner else "")
    return "closed" if state.kind == "closed" else "gone without closing the file; Trace.resume goes on with it"


def events_table(events: Mapping[str, Any], last: int = 5) -> Table:
    """The last events: what failed or was skipped, and why."""
    total = len(events["step"])
    view = table("step", "probe", "reason", title=f"events ({min(last, total)} of {total})")
    for row in range(max(0, total - last), total):
        view.add_row(str(events["step"][row]), str(events["probe"][row]), str(events["reason"][row]))
    return view


def plain_text(value: Any) -> str:
    """A JSON value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(item) for item in value)
    return str(value)
