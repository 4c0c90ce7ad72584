"""The charts of all layers: how sharp each is over the steps, its trace and ranks, and how unlike they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, brief, finite, spreads, subject_of
from probes.views.pictures.style import BLUE, GREY, ORANGE
from probes.views.report.charts.axes import bars, chart, dashed, dots, heat, labelled, layer_map, line, over_steps
from probes.views.report.charts.layers import errors_across, layer_rows
from probes.views.report.page import Chart


def by_layer_charts(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> list[Chart]:
    """Maps of the largest eigenvalue and the effective rank; the last step's traces and ranks with their errors."""
    steps, top = columns["step"], finite(columns["values"])[:, :, 0]
    names = [brief(name) for name in labels] or [f"layer {i + 1}" for i in range(top.shape[1])]
    subject, last = subject_of(settings), f"at step {int(steps[-1])}"
    made = layer_map(f"Largest eigenvalue of each layer's block of the {subject}", steps, top, names, "eigenvalue")
    look: dict[str, Any] = layer_rows(names)
    trace, errors = finite(columns["trace"][-1]), finite(columns["trace_stderr"][-1])
    data = bars(names, trace, orientation="h", error_x=errors_across(errors))
    look["xaxis"] = {"type": "log"} if spreads(trace) else {}
    made.append(chart(f"Trace by layer, {last}", "bars: one standard error", [data], x="trace", **look))
    ranks = []
    for field, color in (("effective_rank", ORANGE), ("stable_rank", BLUE)):
        errors = finite(columns[f"{field}_stderr"][-1])
        found = dots(columns[field][-1], labelled(names), field.replace("_", " "), color=color)
        ranks.append(found | {"error_x": errors_across(errors), "hovertemplate": "%{y}: %{x:.4~g}<extra></extra>"})
    sizes = dots(columns["size"][-1].astype(float), labelled(names), "parameters", color=GREY)
    ranks.append(sizes | {"hovertemplate": "%{y}: %{x:d}<extra></extra>"})
    remark = "how many directions share the curvature, beside how many there are; bars: one standard error"
    made.append(chart(f"Ranks by layer, {last}", remark, ranks, x="directions", **look | {"xaxis": {"type": "log"}}))
    return made


def heterogeneity_charts(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> list[Chart]:
    """Distances between all layers at the last step, and their mean over the steps above its floor."""
    steps, last = columns["step"], finite(columns["distances"][-1])
    names = [brief(name) for name in labels] or [f"layer {i + 1}" for i in range(len(last))]
    own = ", each by its 10th largest eigenvalue" if settings.get("normalise") == "tenth" else ""
    remark = f"0: alike, 1: nothing in common{own}; σ = {short(float(columns['sigma'][-1]), 2)}"
    data = heat(range(len(last)), range(len(last)), last, "distance", colorscale="Viridis", zmin=0, zmax=1)
    data["x"] = data["y"] = labelled(names)
    data["hovertemplate"] = "%{y}<br>%{x}<br>%{z:.3f}<extra></extra>"
    title = f"How unlike the layers' spectra are, at step {int(steps[-1])}"
    look = layer_rows(names)
    made = [chart(title, remark, [data], xaxis={"type": "category", "showticklabels": False}, **look)]
    mean, floor = finite(columns["mean"]), finite(columns["mean_floor"])
    both = [line(steps, mean, "mean over all pairs", errors=columns["mean_stderr"])]
    both.append(dashed(steps, floor, "of a layer to itself", color=GREY))
    remark = "bars: one standard error; near the dashed line it is noise"
    made.append(over_steps("Mean distance", remark, both, y="distance", yaxis={"rangemode": "tozero"}))
    return made
