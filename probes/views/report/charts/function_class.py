"""The charts of a trajectory's function classes: the frontier, the map of least T, and the competitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.views.pictures.axes import Columns, Settings, spreads
from probes.views.pictures.function_class import GAP, at_the_gap, conditions_of, frontier_of, least_t
from probes.views.pictures.style import BLUE, GREY, ORANGE
from probes.views.report.charts.axes import SIGNED, chart, dashed, dots, heat, line, note
from probes.views.report.page import Chart

if TYPE_CHECKING:
    from landscape.regularity import Trajectory
    from probes.trace.records import Records

_CELLS, _POINTS = 90, 1500


def function_class_charts(columns: Columns, settings: Settings, records: Records) -> list[Chart]:
    """Frontier, map and conditions; one chart that says why where there is no trajectory."""
    from probes.instruments.function_class import trajectory

    try:
        t = trajectory(records)
    except ValueError as error:
        return [chart("α-β-condition", "", [], annotations=[note(str(error))], height=160)]
    return [_frontier(t), _map(t), *_conditions(t)]


def _frontier(t: Trajectory) -> Chart:
    gaps, every, most = frontier_of(t)
    beta, remark = at_the_gap(t)
    data = [line(gaps, every, "all rows", mode="lines"), dashed(gaps, most, "99 % of the rows")]
    for trace in data:
        trace["hovertemplate"] = "gap %{x:.3~g}<br>smallest β %{y:.4~g}<extra></extra>"
    if np.isfinite(beta):
        data.append(dots([GAP], [beta], f"gap {GAP}", marker={"size": 9}))
    heights = np.concatenate([every, most])
    if np.isnan(heights).all():
        more: dict[str, Any] = {"annotations": [note("no β works at any of these gaps")]}
    else:
        more = {"yaxis": {"rangemode": "tozero"}}
    title = "α-β-condition: the frontier"
    axes = {"x": "gap α − β", "y": "smallest β"}
    return chart(
        title, f"admissible above the line; {remark}", data, **axes, log=spreads(heights), xaxis={"type": "log"}, **more
    )


def _map(t: Trajectory) -> Chart:
    found = least_t(t, cells=_CELLS)
    size = float(np.nanmax(np.abs(found.values))) or 1.0
    least = 1e-3 * size
    # a log scale on both sides of zero: sign and decades above a thousandth of the largest
    z = np.sign(found.values) * np.log10(1 + np.abs(found.values) / least)
    top = float(np.log10(1 + size / least))
    ticks = {"tickvals": [-top, 0, top], "ticktext": [f"−{size:.2g}", "0", f"{size:.2g}"]}
    data = heat(found.across, found.betas, z.T, "least T", colorscale=SIGNED, zmin=-top, zmax=top)
    data["colorbar"] |= ticks
    data["hovertemplate"] = "%{x:.3~g}, β = %{y:.3~g}<extra></extra>"
    edge = found.frontier + found.gaps if found.plain else found.gaps
    outline = line(edge, found.frontier, "admissible above", color="#222222", mode="lines", hoverinfo="skip")
    across = "α" if found.plain else "α − β"
    limits: dict[str, Any] = {"xaxis": {"range": [float(found.across[0]), float(found.across[-1])]}}
    limits["yaxis"] = {"range": [float(found.betas[0]), float(found.betas[-1])]}
    remark = f"outlined: admissible, T ≥ 0 in all {len(t)} rows and α > β"
    return chart("α-β-condition: least T", remark, [data, outline], x=across, y="β", **limits)


def _conditions(t: Trajectory) -> list[Chart]:
    made = []
    for found in conditions_of(t):
        known = np.flatnonzero(np.isfinite(found.values))
        some = known[:: -(-len(known) // _POINTS) or 1]
        bad = np.isin(some, found.failing)
        parts = ((~bad, BLUE, "holds"), (bad, ORANGE, "fails"))
        data = [
            dots(t.steps[some[mask]], found.values[some[mask]], label, color=colour, showlegend=bool(bad.any()))
            for mask, colour, label in parts
            if mask.any()
        ]
        if len(known) and found.values[known].min() < 0:
            data.append(dashed(t.steps[known][[0, -1]], [0, 0], color=GREY, hoverinfo="skip"))
        log = not found.linear and spreads(found.values[known])
        limits = {"range": [-1.05, 1.05]} if found.linear else {}
        made.append(chart(found.title, found.remark, data, x="step", log=log, yaxis=limits))
        if not len(known):
            made[-1].layout["annotations"] = [note("not known at any row")]
    return made
