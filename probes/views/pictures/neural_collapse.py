"""The picture of neural collapse: all metrics over the steps, each where it should go when the network collapses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite, is_crowded, legend, log_axis, over_steps
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ZERO = 1e-12  # what is not above is rounding, and has no place on a log axis


def neural_collapse_figure(columns: Columns, settings: Settings) -> Figure:
    """NC1 to NC3 on a log axis, NC0, and NC4 with the accuracy where they were measured."""
    measured = bool(np.isfinite(columns["nc4"]).any())
    made, panels = figure(3 if measured else 2, height=4.2)
    _lines(panels[0], columns, (("nc1", "NC1", BLUE), ("nc2", "NC2", GREEN), ("nc3", "NC3", ORANGE)))
    _log(panels[0], columns, ("nc1", "nc2", "nc3"))
    headline(panels[0], "Features and weights", "towards 0: within-class spread, simplex, self-duality")
    _lines(panels[1], columns, (("nc0", "NC0 = ‖Wᵀ1‖", BLUE), ("nc0_normalized", "NC0 / ‖W‖", GREY)))
    _log(panels[1], columns, ("nc0", "nc0_normalized"))
    headline(panels[1], "Sum of the weight's rows", f"towards 0; last: {short(float(columns['nc0'][-1]), 3)}")
    if measured:
        _lines(panels[2], columns, (("nc4", "NC4: agreement", BLUE), ("accuracy", "accuracy", GREY)))
        low = min(float(np.nanmin(finite(columns[name]), initial=1.0)) for name in ("nc4", "accuracy"))
        panels[2].set_ylim(max(0.0, low - 0.05 * (1.0 - low) - 0.005), 1.0 + 0.05 * (1.0 - low) + 0.005)
        headline(panels[2], "Nearest class mean", "towards 1: how often the head says the same")
    for axes in panels:
        over_steps(axes, columns["step"])
        legend(axes)
    return made


def _lines(axes: Axes, columns: Columns, lines: Sequence[tuple[str, str, str]]) -> None:
    steps = columns["step"]
    for name, label, colour in lines:
        values = finite(columns[name])
        if np.isfinite(values).any():
            axes.plot(steps, values, color=colour, marker="" if is_crowded(steps) else ".", ms=7, lw=1.6, label=label)


def _log(axes: Axes, columns: Columns, names: Sequence[str]) -> None:
    """A log axis where all is positive and some line falls (or rises) by more than half; else from 0 on."""
    values = np.concatenate([columns[name] for name in names])
    values = values[np.isfinite(values)]
    if values.size and values.min() > _ZERO and values.max() > 4 * values.min():
        log_axis(axes)
    else:
        axes.set_ylim(bottom=0.0)
