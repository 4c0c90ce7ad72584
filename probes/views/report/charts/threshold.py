"""The charts of all eigenvalues above a threshold: the values over the steps, and how many they are."""

from __future__ import annotations

import numpy as np

from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.pictures.style import BLUE, GREY
from probes.views.pictures.threshold import REMARK, lower_bounds, points, title_of
from probes.views.report.charts.axes import dots, line, over_steps, threshold
from probes.views.report.page import Chart


def threshold_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """A dot for each eigenvalue above the threshold, grey where its side is not told; beside it their number."""
    limit = finite(columns["threshold"])
    steps, values, residuals, marginal = points(columns)
    shown = ((~marginal, BLUE, ""), (marginal, GREY, "too close to tell"))
    data = [
        dots(steps[which], values[which], name, color=colour, errors=residuals[which])
        for which, colour, name in shown
        if which.any()
    ]
    data += threshold(columns["step"], limit, f"{settings.get('c', 2.0):g}/η")
    made = [over_steps(title_of(settings), REMARK, data, y="eigenvalue", values=np.r_[values, limit])]
    if len(columns["step"]) > 1:
        counted = line(columns["step"], columns["count"], line={"shape": "hvh", "width": 1.4})
        made.append(over_steps("How many are above", lower_bounds(columns), [counted], y="eigenvalues"))
        made[-1].layout["yaxis"] |= {"rangemode": "tozero"}
    return made
