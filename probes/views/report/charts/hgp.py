"""The charts of two sets of data beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.pictures.hgp import LINES, PANELS, remark
from probes.views.report.charts.axes import band, line, over_steps
from probes.views.report.page import Chart


def hgp_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Cosine and distance of the two sets, each with what it is within one set."""
    steps, made = columns["step"], []
    for field, title in PANELS:
        data: list[Any] = []
        for ending, label, color in LINES:
            values, errors = finite(columns[field + ending]), finite(columns[f"{field}{ending}_stderr"])
            if len(steps) == 1:
                data.append(line(steps, values, label, color=color, errors=errors))
            else:
                data += [
                    band(steps, values - errors, values + errors, color=color),
                    line(steps, values, label, color=color),
                ]
        both = np.r_[columns[field], columns[f"{field}_within"]]
        made.append(over_steps(title, remark(columns), data, y=field, values=both))
    return made
