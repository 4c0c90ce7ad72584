"""The picture of Gauss-Newton conditioning: kappa with its bounds and its sensitivity, and the spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite, scale
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Eigenvalues below this share of the largest are rounding in any precision.
_SHOWN = 1e-18


def conditioning_figure(columns: Columns, settings: Settings) -> Figure:
    """Left the eigenvalues at the first and the last step, right kappa over the steps (for several steps)."""
    several = len(columns["step"]) > 1
    made, panels = figure(2 if several else 1, height=4.2)
    _spectra(panels[0], columns)
    what = "with the loss's second derivative" if settings.get("loss_hessian") else "(1/N) JᵀJ"
    headline(panels[0], f"Gauss-Newton eigenvalues, {what}")
    if several:
        _kappas(panels[1], columns)
    return made


def _spectra(axes: Axes, columns: Columns) -> None:
    steps = columns["step"]
    drawn = 0
    for row, colour in ((0, GREY), (len(steps) - 1, BLUE))[-len(steps) :]:
        values = np.asarray(columns["eigenvalues"][row], dtype=float)[::-1]
        values = values[values > 0]
        if not len(values):
            continue
        drawn += 1
        axes.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.6, label=f"step {steps[row]}")
        axes.axhline(float(columns["threshold"][row]), color=colour, ls=":", lw=1)
    if not drawn:
        axes.text(0.5, 0.5, "no eigenvalues: the matrix did not fit", ha="center", transform=axes.transAxes)
        return
    axes.set_yscale("log")
    axes.set_ylim(bottom=_SHOWN * float(np.max(columns["largest"])))
    axes.set_xlabel("eigenvalue number")
    if drawn > 1:
        axes.legend(frameon=False)
    rank, kappa = int(columns["rank"][-1]), float(columns["kappa"][-1])
    neighbours = [short(float(value), 3) for value in columns["neighbours"][-1] if np.isfinite(value)]
    beside = f" (beside: {', '.join(neighbours)})" if neighbours else ""
    note(axes, f"dotted: threshold; last step: rank {rank}, κ = {short(kappa, 3)}{beside}")


def _kappas(axes: Axes, columns: Columns) -> None:
    steps, bounds = columns["step"], finite(columns["bound"])
    axes.plot(steps, columns["kappa"], color=BLUE, marker="o", ms=4, label="κ")
    if np.isfinite(bounds).any():
        axes.plot(steps, bounds, color=ORANGE, ls="--", label="upper bound")
        axes.legend(frameon=False)
    scale(axes, np.r_[columns["kappa"], bounds])
    axes.set_xlabel("step")
    lower = "" if bool(np.all(columns["converged"])) else "; lower bounds where the matrix did not fit"
    ranks = np.asarray(columns["rank"])
    span = f"{ranks.min()} .. {ranks.max()}" if ranks.min() < ranks.max() else f"{ranks[0]}"
    headline(axes, "Condition number", f"rank {span}{lower}")
