"""The charts of a second-order solver's steps: what its model promised and what came, and its constant."""

from __future__ import annotations

import numpy as np

from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.pictures.style import BLUE, GREY, ORANGE
from probes.views.report.charts.axes import dots, line, over_steps
from probes.views.report.page import Chart


def solver_steps_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The promised and the measured decrease of each step, rejected steps marked; the constant."""
    steps, promised, used = columns["step"], finite(columns["decrease"]), finite(columns["used"])
    measured = finite(columns["loss"] - columns["new_loss"])
    data = [
        line(steps, np.where(values > 0, values, np.nan), label, color=colour)
        for values, colour, label in ((promised, GREY, "promised by the model"), (measured, BLUE, "measured"))
    ]
    rejected = (finite(columns["accepted"]) == 0) & (promised > 0)
    if rejected.any():
        crosses = {"symbol": "x", "size": 8}
        data.append(dots(steps[rejected], promised[rejected], "rejected", color=ORANGE, marker=crosses))
    remark = "of the step before the record, on its closure's data; rises are not drawn"
    log = {"type": "log"}
    said = "M, H, L, gamma or the damping, in the step's last model"
    return [
        over_steps("Decrease of the loss", remark, data, y="decrease", yaxis=log),
        over_steps("The solver's constant", said, [line(steps, used)], values=used),
    ]
