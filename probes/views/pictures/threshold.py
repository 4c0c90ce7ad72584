"""The picture of all eigenvalues above a threshold: the values over the steps, and how many they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.views.pictures.axes import (
    Columns,
    Settings,
    bars,
    finish,
    over_steps,
    subject_of,
    threshold_line,
    whole_numbers,
)
from probes.views.pictures.style import BLUE, GREY, figure, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REMARK = "bars: residuals; grey: too close to the threshold to tell"


def threshold_figure(columns: Columns, settings: Settings) -> Figure:
    """A dot for each eigenvalue above the threshold, grey where its side is not told; beside it their number."""
    several, limit = len(columns["step"]) > 1, columns["threshold"]
    made, panels = figure(2 if several else 1)
    axes = panels[0]
    steps, values, residuals, marginal = points(columns)
    for which, colour in ((~marginal, BLUE), (marginal, GREY)):
        bars(axes, steps[which], values[which], residuals[which], color=colour, ls="")
    threshold_line(axes, columns["step"], limit, f"{settings.get('c', 2.0):g}/η")
    finish(axes, columns["step"], values, title_of(settings), REMARK, thresholds=limit, ylabel="eigenvalue")
    if several:
        axes = panels[1]
        axes.plot(columns["step"], columns["count"], color=BLUE, marker=".", lw=1.5, drawstyle="steps-mid")
        axes.set_ylim(0, 1.15 * max(1, int(np.max(columns["count"]))))
        whole_numbers(axes.yaxis, 6)
        over_steps(axes, columns["step"])
        headline(axes, "How many", lower_bounds(columns))
    return made


def points(columns: Columns) -> tuple[Any, Any, Any, Any]:
    """Step, value, residual and whether it is marginal, of each eigenvalue of each step."""
    rows = [np.asarray(row, dtype=float) for row in columns["values"]]
    steps = np.repeat(np.asarray(columns["step"]), [len(row) for row in rows])
    joined = [np.concatenate([np.zeros(0), *columns[name]]) for name in ("values", "residuals", "marginal")]
    return steps, joined[0].astype(float), joined[1].astype(float), joined[2].astype(bool)


def title_of(settings: Settings) -> str:
    """Of which matrix, above what."""
    return f"Eigenvalues of the {subject_of(settings)} above {settings.get('c', 2.0):g}/η"


def lower_bounds(columns: Columns) -> str:
    """A word on the steps at which there are more."""
    steps = int(np.sum(np.asarray(columns["more"], dtype=bool)))
    return f"at {steps} step{'s' * (steps > 1)} a lower bound" if steps else ""
