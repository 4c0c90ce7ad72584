"""The picture of a sweep: the loss at the end over the step size, a line for each solver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from probes.numbers import short
from probes.sweep.curves import LossCurve
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, note, save, style

COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GREY, "#000000")


def sensitivity_figure(found: Sequence[LossCurve], path: Path, title: str = "") -> Path:
    """Write the losses over the step sizes as PNG; the path written."""
    with style():
        made, (axes,) = figure()
        draw_curves(axes, found)
        headline(axes, title or "Loss at the end over step size")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(made, path)


def draw_curves(
    axes: Axes, found: Sequence[LossCurve], colours: Sequence[Any] = COLOURS, names: Sequence[str] | None = None
) -> None:
    """A line for each solver, a band of one standard error, a cross where a run diverged."""
    for i, curve in enumerate(found):
        colour, dash = colours[i % len(colours)], "-" if i < len(colours) else "--"
        mean, error = curve.mean, curve.stderr
        label = curve.solver if names is None else names[i]
        axes.plot(curve.lrs, mean, color=colour, ls=dash, marker="o", ms=3, lw=1.6, label=label)
        axes.fill_between(curve.lrs, np.maximum(mean - error, mean / 10), mean + error, color=colour, alpha=0.18, lw=0)
        lost = curve.diverged > 0
        axes.plot(curve.lrs[lost], mean[lost], ls="", marker="x", ms=8, mew=1.6, color=colour)
    start = float(np.mean([curve.first.mean() for curve in found]))
    axes.axhline(start, color=GREY, lw=0.9, ls=":")
    axes.set_xscale("log")
    low, high = min(float(curve.mean.min()) for curve in found), max(float(curve.mean.max()) for curve in found)
    if low > 0:
        marked = "25" if high > 10 * low else "123456789"  # first digits of the small ticks that get a number
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: short(value, 3))
        axes.yaxis.set_minor_formatter(lambda value, _: short(value, 3) if f"{value:e}"[0] in marked else "")
    axes.set(xlabel="step size", ylabel="training loss at the end")
    note(axes, "mean of the seeds ± standard error; dotted: the start; ×: a run diverged")
