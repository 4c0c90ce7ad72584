"""Tables of a trace for the terminal: what is in it, and the measurements of each step with their errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from probes.numbers import at_thresholds, plus_minus, round_to_error, short
from probes.trace.state import state_of
from probes.views.kinds import FUNCTION_CLASS, KINDS, kind_of, settings_text

if TYPE_CHECKING:
    from probes.trace.trace import Trace

_STYLE = box.SIMPLE_HEAD
# More eigenvalues than this make a row longer than a terminal is wide; the trace has them all.
_SHOWN = 5


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
    for name, kind, records in _ordered(trace, tail):
        for row, step in enumerate(records["step"]):
            values = {field: column[row] for field, column in records.items()}
            for heading, text in _cells(name, kind, values):
                columns.setdefault(heading, {})[int(step)] = text
        note = _note(name, kind, records)
        if note:
            notes.append(note)
        if kind in FUNCTION_CLASS:
            notes.append(_class_note(trace, name))
    steps = sorted({step for cells in columns.values() for step in cells})
    if last is not None:
        steps = steps[-last:]
    if total > len(steps):
        notes.append(f"the last {len(steps)} of {total} steps")
    views: list[RenderableType] = []
    for headings in fitting(columns, steps, width):
        view = table()
        view.add_column("step", justify="right", no_wrap=True)
        for heading in headings:
            view.add_column(heading, justify="right", no_wrap=True)
        for step in steps:
            texts = [columns[heading].get(step, "") for heading in headings]
            if any(texts):
                view.add_row(str(step), *texts)
        views.append(view)
    return Group(*views, *(Text(note, style="dim") for note in notes))


def fitting(
    columns: Mapping[str, Mapping[Any, str]], rows: Sequence[Any], width: int, corner: str = "step"
) -> list[list[str]]:
    """The headings, split so that each part is at most `width` wide together with the rows' own column."""
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
    return parts


def _last_rows(trace: Trace, last: int | None) -> tuple[int, dict[str, int]]:
    """How many steps there are, and for each group the first row that has one of the `last`: the rest is not read."""
    if last is None:
        return 0, {}
    steps = {name: trace[name]["step"] for name in trace}
    distinct = np.unique(np.concatenate([np.empty(0, np.int64), *steps.values()]))
    oldest = distinct[-last:][:1]
    first = {name: np.flatnonzero(own >= oldest) for name, own in steps.items()}
    return len(distinct), {name: int(rows[0]) if len(rows) else len(steps[name]) for name, rows in first.items()}


def _ordered(trace: Trace, start: Mapping[str, int]) -> list[tuple[str, str | None, Mapping[str, Any]]]:
    """Name, kind and columns of each group from row `start` on: the loss first, what is not known last."""
    groups = [(name, trace[name].read(start.get(name, 0))) for name in trace]
    known = [(name, kind_of(columns, trace[name].settings), columns) for name, columns in groups]
    return sorted(known, key=lambda group: KINDS.index(group[1]) if group[1] in KINDS else len(KINDS))


def _cells(name: str, kind: str | None, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Heading and text of each column that one row of a probe fills."""
    if kind == "loss":
        yield "loss", short(float(values["value"]), 5)
        yield "|gradient|", short(float(values["gradient_norm"]), 4)
    elif kind == "spectrum":
        yield f"{name}: largest eigenvalues", eigenvalues_text(values)
    elif kind == "density":
        nodes, weights = values["nodes"], values["weights"]
        seen = nodes[weights > 0]
        yield f"{name}: from .. to", f"{short(float(seen.min()))} .. {short(float(seen.max()))}"
    elif kind == "condition":
        yield from _condition_cells(name, values)
    elif kind == "conditioning":
        lower = "" if bool(values["converged"]) else "≥ "
        yield f"{name}: rank", f"{lower}{int(values['rank'])}"
        yield f"{name}: kappa", f"{lower}{short(float(values['kappa']))}"
        beside = [short(float(kappa), 3) for kappa in values["neighbours"]]
        yield f"{name}: at rank -2, -1, +1", ", ".join(beside)
        if np.isfinite(values["bound"]):
            yield f"{name}: bound", short(float(values["bound"]))
    elif kind == "critical-sharpness":
        yield name, f"{short(float(values['lower']))} .. {short(float(values['upper']))}"
        yield f"{name}: threshold", short(float(values["threshold"]))
    elif kind == "neural-collapse":
        for number in range(5):
            value = float(values[f"nc{number}"])
            if np.isfinite(value) or number < 4:
                yield f"{name}: NC{number}", short(value)
    elif kind == "updates":
        ratios = np.asarray(values["ratio"], dtype=float)
        if np.isfinite(ratios).any():  # nothing to compare with at the first step
            low, high = float(np.nanmin(ratios)), float(np.nanmax(ratios))
            yield f"{name}: |update| / |weight|", f"{short(low, 2)} .. {short(high, 2)}"
    elif kind in FUNCTION_CLASS:
        yield from _class_cells(name, values)
    elif kind in _ERRORS:
        for heading, field, error in _ERRORS[kind]:
            if error:
                yield f"{name}{heading}", plus_minus(float(values[field]), float(values[error])) + _star(values)
            elif np.isfinite(values[field]):  # a threshold is not known without an optimizer
                yield f"{name}{heading}", short(float(values[field]))
    else:
        for field, value in values.items():
            if field not in ("step", "epoch", "time", "cost") and np.ndim(value) == 0:
                yield f"{name}: {field}", str(value) if isinstance(value, str) else short(float(value), 5)


# The columns of a kind: what is added to the probe's name, the field, and the field that holds its error.
_ERRORS = {
    "trace": (("", "value", "stderr"),),
    "sharpness": (("", "value", "residual"), (": threshold", "threshold", "")),
    "batch-sharpness": (("", "value", "stderr"), (": threshold", "threshold", "")),
    "sam-sharpness": (("", "value", "error"),),
    "gradient": ((": norm", "norm", ""), (": noise scale", "noise_scale", "noise_scale_stderr")),
    "alignment": ((": in the top vectors", "total", "total_bound"),),
}


def _class_cells(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The loss and the angle to the end point; means over the samples where a row has many."""
    yield f"{name}: loss", short(float(np.mean(values["loss"])), 5)
    if "inner" in values:
        scale = np.asarray(values["grad_norm"]) * np.asarray(values["distance"])
        if np.all(scale > 0):
            yield f"{name}: cos(g, x - x_K)", short(float(np.mean(values["inner"] / scale)), 3)


def _class_note(trace: Trace, name: str) -> str:
    """The conditions of all rows in words, whichever rows the table shows."""
    from landscape.regularity import describe
    from probes.instruments.function_class import trajectory

    try:
        return f"{name}: {describe(trajectory(trace[name]))}"
    except ValueError as error:
        return f"{name}: {error}"


def _condition_cells(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{name}: rank", f"{short(float(values['rank']), 6)}"
    yield f"{name}: kappa", f"{short(float(values['kappa']))}{_star(values)}"
    if "thresholds" in values:
        for threshold, rank, kappa in at_thresholds(values):
            bound = "" if bool(values["converged"]) else "≥ "
            text = f"{bound}{rank} ({bound}{short(kappa, 3)})"
            yield f"{name} > {threshold:.0e} λ₁ (κ)".replace("e-0", "e-"), text


def eigenvalues_text(values: Mapping[str, Any], shown: int = _SHOWN) -> str:
    """`"12.34, 8.21, 5.6 ± 0.01"`: the largest residual bounds the error of each."""
    found = np.isfinite(values["values"])  # pairs that were not found are nan
    largest = np.asarray(values["values"], dtype=float)[found][:shown]
    error = float(np.max(np.asarray(values["residuals"], dtype=float)[found][:shown], initial=0.0))
    more = int(found.sum()) - len(largest)
    error_text = f" ± {error:.1g}".replace("e-0", "e-") if error > 0 else ""
    tail = f" (+{more})" if more > 0 else ""
    return ", ".join(round_to_error(float(v), error, 5) for v in largest) + error_text + tail + _star(values)


def _star(values: Mapping[str, Any]) -> str:
    return "" if bool(values.get("converged", True)) else " *"


def _note(name: str, kind: str | None, records: Mapping[str, Any]) -> str:
    """What a reader must know about a column: what its error means, and what a star says."""
    parts = []
    if kind == "spectrum":
        parts.append("± is the largest residual, a bound on the error of each eigenvalue")
    if kind == "trace":
        parts.append("± one standard error")
    if kind == "condition" and "thresholds" in records:
        parts.append("> t λ₁: how many eigenvalues exceed t times the largest (and κ, their condition number)")
    if "converged" in records and not bool(np.all(records["converged"])):
        parts.append("* had not converged when its products were spent")
    return f"{name}: {'; '.join(parts)}" if parts else ""


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
