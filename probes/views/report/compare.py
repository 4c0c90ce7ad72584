"""Several runs in one chart: the comparison of `landscape compare`, for the numbers of each kind of probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from probes.errors import UserError
from probes.trace.set import TraceSet
from probes.views.comparison.picture import drawn
from probes.views.comparison.select import Comparison, Repeated, compare_runs
from probes.views.comparison.table import cells_at, method, place_labels
from probes.views.comparison.wholes import compare_densities, compare_updates
from probes.views.pictures.axes import spreads
from probes.views.report.charts.axes import band, chart, colours, line
from probes.views.report.page import Block, Chart, Grid
from probes.views.report.rows import csv_text

# What is compared of each kind, where it is not the one number that stands for a probe.
FIELDS = {
    "loss": ("value", "gradient_norm"),
    "spectrum": ("values.0",),
    "trace": ("value",),
    "condition": ("kappa", "rank"),
    "heterogeneity": ("mean",),
    "gauss-newton": ("kappa", "rank"),
    "critical-step-curve": ("critical", "edge", "lr"),
    "gradient": ("loss", "norm", "noise_scale"),
    "alignment": ("total",),
    "function-class": ("loss", "grad_norm"),
    "hgp": ("cosine", "excess"),
    "neural-collapse": ("nc0", "nc1", "nc2", "nc3", "nc4"),
    "dual-gradient": ("total", "mu"),
    "batch-rule": ("L", "mu", "rho", "sigma", "batch"),
    "snapshots": ("norm",),
    "solver": ("decrease", "used"),
}
# What is compared where no number says it.
WHOLES: Mapping[str, Callable[[TraceSet, str, Sequence[str]], Comparison]] = {
    "density": compare_densities,
    "updates": compare_updates,
}
_PLACES, _ROWS, _LONG = 400, 15, 60


def comparison_block(runs: TraceSet, name: str, kind: str | None, anchor: str) -> Block | None:
    """The numbers of the records `name` that two or more runs have; None where there are none."""
    whole = WHOLES.get(kind or "")
    fields = FIELDS.get(kind or "", ("value",))
    every = [_compared(partial(whole, runs, name))] if whole else [_compared(_of(runs, f"{name}.{f}")) for f in fields]
    found = [one for one in every if one is not None and sum(len(group.names) for group in one.groups) > 1]
    if not found:
        return None
    notes = list(dict.fromkeys(note for one in found for note in (method(one), *one.notes)))
    return Block(
        anchor=anchor,
        title=f"{name}: runs beside each other",
        settings="",
        draw=lambda: [_chart(one) for one in found],
        text="; ".join(map(_text, found)),
        grid=_grid(found),
        notes=notes,
        pictures=partial(_pictures, found),
    )


def _pictures(found: Sequence[Comparison]) -> dict[str, Any]:
    return {f"-{index + 1}": drawn(one) for index, one in enumerate(found)}


def _of(runs: TraceSet, field: str) -> Callable[[Sequence[str]], Comparison]:
    return lambda keys: compare_runs(runs, field, keys=keys)


def _compared(compare: Callable[[Sequence[str]], Comparison]) -> Comparison | None:
    """What a function makes of the keys to average over; run by run where nothing is averaged and labels are long."""
    try:
        found = compare(())
        plain = all(len(group.names) == 1 for group in found.groups)
        if plain and max(len(group.label) for group in found.groups) > _LONG:
            found = compare(("run",))
        return found
    except UserError:  # no run has it, or none has a finite value
        return None


def _chart(found: Comparison) -> Chart:
    data, values = [], [np.empty(0)]
    for group, colour in zip(found.groups, colours(len(found.groups)), strict=True):
        own = np.unique(np.concatenate([curve.x for curve in group.curves]))
        x = own if len(own) <= _PLACES else found.grid(_PLACES)
        average = group.average(x)
        there = average.runs > 0
        x, mean, error = x[there], average.mean[there], np.nan_to_num(average.stderr[there])
        if len(group.names) > 1:
            data.append(band(x, mean - error, mean + error, color=colour))
        data.append(line(x, mean, group.heading, color=colour))
        if len(group.names) > 1:
            data[-1]["customdata"] = [float(f"{e:.2g}") for e in error]
            data[-1]["hovertemplate"] = data[-1]["hovertemplate"].replace("%{y:.5~g}", "%{y:.5~g} ± %{customdata:.2~g}")
        values.append(np.r_[mean - error, mean + error])
    remark = "mean; band: one standard error over the runs; " if found.repeated else ""
    log = spreads(np.concatenate(values))
    return chart(found.field, remark + found.how, data, x=found.by, y=found.title, log=log)


def _grid(found: Sequence[Comparison]) -> Grid:
    """A row for each place of the axis; of each number its columns beside each other."""
    rows: dict[str, list[str]] = {}
    headings: list[str] = []
    for one in found:
        places = one.grid(_ROWS)
        columns = [cells_at(group, places) for group in one.groups]
        for label, *texts in zip(place_labels(places), *columns, strict=True):
            rows.setdefault(label, [""] * len(headings)).extend(texts)
        headings += [f"{one.field}: {group.heading}" for group in one.groups]
        for texts in rows.values():
            texts += [""] * (len(headings) - len(texts))
    ordered = sorted(rows.items(), key=lambda row: float(row[0]))
    return Grid(found[0].by, headings, ordered, _csv(found))


def _csv(found: Sequence[Comparison]) -> str:
    """A row for each place of each group: mean, standard error, and number of runs."""
    rows = [
        (one.field, group.heading, *values)
        for one in found
        for group in one.groups
        for values in _values(group, one.grid(_PLACES))
    ]
    return csv_text(["field", "group", found[0].by, "mean", "stderr", "runs"], list(zip(*rows, strict=True)))


def _values(group: Repeated, places: np.ndarray) -> Iterator[tuple[float, float, float, int]]:
    average = group.average(places)
    for place, mean, stderr, count in zip(places, average.mean, average.stderr, average.runs, strict=True):
        if count:
            yield float(place), float(mean), float(stderr), int(count)


def _text(found: Comparison) -> str:
    ends = []
    for group in found.groups:
        place = np.array([max(curve.x[-1] for curve in group.curves)])
        ends.append(f"{group.heading}: {cells_at(group, place)[0]} at {found.by} {place_labels(place)[0]}")
    return f"{found.field}: " + "; ".join(ends)


def shared_names(sources: Sequence[dict[str, str | None]]) -> list[str]:
    """The names of records that two runs or more have."""
    names = [name for source in sources for name in source]
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]
