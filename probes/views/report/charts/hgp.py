"""The charts of two sets of data beside each other."""

from __future__ import annotations

import numpy as np

from probes.views.pictures.axes import Columns, Settings
from probes.views.pictures.hgp import LINES, PANELS, remark
from probes.views.report.charts.axes import line, over_steps
from probes.views.report.page import Chart


def hgp_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Cosine and distance of the two sets, each with what it is within one set."""
    steps, made = columns["step"], []
    for field, title in PANELS:
        data = [
            line(steps, columns[field + ending], label, color=color, errors=columns[f"{field}{ending}_stderr"])
            for ending, label, color in LINES
        ]
        both = np.r_[columns[field], columns[f"{field}_within"]]
        made.append(over_steps(title, remark(columns), data, y=field, values=both))
    return made
