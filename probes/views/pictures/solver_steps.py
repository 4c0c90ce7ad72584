"""The picture of a second-order solver's steps: what its model promised and what came, and its constant."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from probes.views.pictures.axes import Columns, Settings, finite, is_crowded, legend, log_axis, over_steps, scale
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline


def solver_steps_figure(columns: Columns, settings: Settings) -> Figure:
    """The promised and the measured decrease of each step, rejected steps marked; beside them the constant."""
    made, (left, right) = figure(2)
    steps, promised, used = columns["step"], finite(columns["decrease"]), finite(columns["used"])
    measured = finite(columns["loss"] - columns["new_loss"])
    size = 3 if is_crowded(steps) else 7
    for values, colour, label in ((promised, GREY, "promised by the model"), (measured, BLUE, "measured")):
        positive = np.where(values > 0, values, np.nan)
        left.plot(steps, positive, color=colour, marker=".", ms=size, lw=1.5, label=label)
    rejected = (finite(columns["accepted"]) == 0) & (promised > 0)
    if rejected.any():
        left.plot(steps[rejected], promised[rejected], "x", color=ORANGE, ms=6, label="rejected")
    log_axis(left)
    over_steps(left, steps, promised, measured)
    headline(left, "Decrease of the loss", "of the step before the record, on its closure's data; rises are not drawn")
    legend(left)
    right.plot(steps, used, color=BLUE, marker=".", ms=size, lw=1.5)
    scale(right, used)
    over_steps(right, steps, used)
    headline(right, "The solver's constant", "M, H, L, gamma or the damping, in the step's last model")
    return made
