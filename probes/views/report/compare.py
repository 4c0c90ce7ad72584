"""Several runs in one chart: the comparison of `landscape compare`, for the numbers of each kind of probe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from probes.errors import UserError
from probes.trace.set import TraceSet
from probes.views.comparison.select import Comparison, compare_runs
from probes.views.comparison.table import cells_at, method, place_labels
from probes.views.report.charts.axes import band, colours, line, over_steps
from probes.views.report.page import Block, Chart, Grid

# What is compared of each kind, where it is not the one number that stands for a probe.
FIELDS = {
    "loss": ("value", "gradient_norm"),
    "spectrum": ("values.0",),
    "trace": ("value",),
    "density": (),
    "condition": ("kappa", "rank"),
    "gauss-newton": ("kappa", "rank"),
    "gradient": ("loss", "norm", "noise_scale"),
    "alignment": ("total",),
    "updates": (),
    "function-class": ("loss", "grad_norm"),
    "neural-collapse": ("nc0", "nc1", "nc2", "nc3", "nc4"),
    "dual-gradient": ("total", "mu"),
    "solver": ("decrease", "used"),
}
_PLACES, _ROWS, _LONG = 400, 15, 60


def comparison_blocks(runs: TraceSet, name: str, kind: str | None) -> Iterator[Block]:
    """One block for each number of the records `name` that two or more runs have."""
    for field in FIELDS.get(kind or "", ("value",)):
        found = _compared(runs, f"{name}.{field}")
        if found is None or sum(len(group.names) for group in found.groups) < 2:
            continue
        anchor = f"compare-{name}-{field}".replace(".", "-")
        notes = [method(found), *found.notes]
        yield Block(anchor, f"{found.field} of all runs", "", [_chart(found)], _text(found), _grid(found), notes)


def _compared(runs: TraceSet, field: str) -> Comparison | None:
    try:
        found = compare_runs(runs, field)
        plain = all(len(group.names) == 1 for group in found.groups)
        if plain and max(len(group.label) for group in found.groups) > _LONG:
            found = compare_runs(runs, field, keys=("run",))
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
    title = f"{found.field} of {sum(len(group.names) for group in found.groups)} runs"
    return over_steps(title, f"{remark}linear between records", data, y=found.title, values=np.concatenate(values))


def _grid(found: Comparison) -> Grid:
    places = found.grid(_ROWS)
    labels = place_labels(places)
    columns = [cells_at(group, places) for group in found.groups]
    rows = [(label, [column[i] for column in columns]) for i, label in enumerate(labels)]
    return Grid(found.by, [group.heading for group in found.groups], rows, _csv(found))


def _csv(found: Comparison) -> str:
    """Step, then mean, standard error and number of runs of each group."""
    from probes.views.report.rows import csv_text

    places = found.grid(_PLACES)
    names, columns = [found.by], [places.tolist()]
    for group in found.groups:
        average = group.average(places)
        names += [group.heading, f"{group.heading}: stderr", f"{group.heading}: runs"]
        columns += [average.mean.tolist(), average.stderr.tolist(), average.runs.tolist()]
    return csv_text(names, columns)


def _text(found: Comparison) -> str:
    ends = []
    for group in found.groups:
        place = np.array([max(curve.x[-1] for curve in group.curves)])
        ends.append(f"{group.heading}: {cells_at(group, place)[0]} at {found.by} {place_labels(place)[0]}")
    return "; ".join(ends)


def shared_names(sources: Sequence[dict[str, str | None]]) -> list[str]:
    """The names of records that two runs or more have."""
    names = [name for source in sources for name in source]
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]
