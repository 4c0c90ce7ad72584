"""The picture of a second-order solver's steps: what its model promised and what came, and its constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.views.pictures.axes import Columns, Settings, finish, finite, legend, line, log_axis, over_steps
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def solver_steps_figure(columns: Columns, settings: Settings) -> Figure:
    """The promised and the measured decrease of each step, rejected steps marked; beside them the constant."""
    made, (left, right) = figure(2)
    steps, promised, used = columns["step"], finite(columns["decrease"]), finite(columns["used"])
    measured = finite(columns["loss"] - columns["new_loss"])
    for values, colour, label in ((promised, GREY, "promised by the model"), (measured, BLUE, "measured")):
        line(left, steps, np.where(values > 0, values, np.nan), color=colour, label=label)
    rejected = (finite(columns["accepted"]) == 0) & (promised > 0)
    if rejected.any():
        left.plot(steps[rejected], promised[rejected], "x", color=ORANGE, ms=6, label="rejected")
    log_axis(left)
    over_steps(left, steps, promised, measured)
    headline(left, "Decrease of the loss", "of the step before the record, on its closure's data; rises are not drawn")
    legend(left)
    line(right, steps, used)
    finish(right, steps, used, "The solver's constant", "M, H, L, gamma or the damping, in the step's last model")
    return made
