"""The charts of the trace, of ranks and condition numbers at thresholds, and of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.numbers import plus_minus, short
from probes.views.pictures.axes import Columns, Settings, subject_of
from probes.views.pictures.curvature import ranks_at_thresholds
from probes.views.pictures.style import BLUE, GREY
from probes.views.report.charts.axes import bars, chart, colours, line, over_steps
from probes.views.report.page import Chart


def trace_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The trace with its standard error."""
    values, errors = columns["value"], columns["stderr"]
    data = [line(columns["step"], values, errors=errors)]
    last = plus_minus(float(values[-1]), float(errors[-1]))
    title = f"Trace of the {subject_of(settings)}"
    return [over_steps(title, f"bars: one standard error; last: {last}", data, y="trace", values=values)]


def loss_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Loss and gradient norm."""
    shown = (("value", "Loss"), ("gradient_norm", "Gradient norm"))
    return [
        over_steps(title, "", [line(columns["step"], columns[field])], y=title.lower(), values=columns[field])
        for field, title in shown
    ]


def condition_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Condition number by threshold, and how many eigenvalues exceed each of three."""
    steps, exact = columns["step"], bool(np.all(columns["converged"]))
    bound = "" if exact else ", lower bounds"
    names, ranks, kappas = ranks_at_thresholds(columns)
    made = [_by_threshold(columns, bound, subject_of(settings))]
    title, counted = f"Rank of the {subject_of(settings)}", f"number of eigenvalues{bound}"
    remark = "κ: condition number of what exceeds the threshold, at the last step"
    if len(steps) > 1:
        data = [
            line(steps, ranks[:, i], f"{names[i]}: {kappas[i]}", color=colour)
            for i, colour in enumerate(colours(len(names)))
        ]
        return [*made, over_steps(title, remark, data, y=counted, yaxis={"rangemode": "tozero"})]
    sign = "" if exact else "≥ "
    texts = [f"{sign}{int(rank)} ({kappa})" for rank, kappa in zip(ranks[0], kappas, strict=True)]
    look: dict[str, Any] = {"orientation": "h", "text": texts, "textposition": "auto", "insidetextanchor": "start"}
    data = [bars(names, ranks[0], width=0.55, **look)]
    return [*made, chart(title, remark, data, x=counted, yaxis={"autorange": "reversed"})]


def _by_threshold(columns: Columns, bound: str, subject: str) -> Chart:
    """kappa over the relative threshold, at the first and the last step: a line of slope -1 is no property."""
    rows = dict.fromkeys((0, len(columns["step"]) - 1))
    data = []
    for row, colour in zip(rows, (GREY, BLUE)[-len(rows) :], strict=True):
        thresholds, kappas, counted = (
            np.asarray(columns[name][row], dtype=float) for name in ("thresholds", "kappas", "ranks")
        )
        seen = np.isfinite(thresholds) & np.isfinite(kappas) & (counted >= 0) & (thresholds > 0)
        name = f"step {int(columns['step'][row])}"
        data.append(line(thresholds[seen], kappas[seen], name, color=colour, showlegend=len(rows) > 1))
        data[-1]["customdata"] = [int(rank) for rank in counted[seen]]
        data[-1]["hovertemplate"] = "threshold %{x:.2~g} λ₁<br>κ %{y:.4~g}, rank %{customdata}<extra></extra>"
    last = {"type": "log"}
    said = f"κ = {short(float(columns['kappa'][-1]), 4)} at its own threshold; κ = 1/threshold: no gap in the spectrum"
    title = f"Condition number of the {subject}, by threshold"
    where = {"x": "threshold, relative to λ₁", "y": f"κ{bound}"}
    return chart(title, said, data, **where, log=True, xaxis=last)
