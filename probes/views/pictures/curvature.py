"""Pictures of the trace and of the rank of a curvature matrix over the steps, and of the loss beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import at_thresholds, plus_minus, short
from probes.views.pictures.axes import Columns, Settings, bars, end_label, over_steps, scale, subject_of
from probes.views.pictures.style import BLUE, GREEN, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLE = ("thresholds", "ranks", "kappas")


def trace_figure(columns: Columns, settings: Settings) -> Figure:
    """The trace with its standard error over the steps."""
    made, (axes,) = figure()
    steps, values, errors = columns["step"], columns["value"], columns["stderr"]
    bars(axes, steps, values, errors)
    axes.set_xlabel("step")
    axes.set_ylabel("trace")
    last = plus_minus(float(values[-1]), float(errors[-1]))
    headline(axes, f"Trace of the {subject_of(settings)}", f"bars: one standard error; last: {last}")
    if len(steps) == 1:
        axes.set_xticks(steps)
    return made


def ranks_at_thresholds(columns: Columns) -> tuple[list[str], Any, list[str]]:
    """Names of relative thresholds, how many eigenvalues exceed each, `(steps, thresholds)`, and the last step's κ."""
    entries = [at_thresholds({key: columns[key][i] for key in _TABLE}) for i in range(len(columns["step"]))]
    thresholds = [threshold for threshold, _, _ in entries[-1]]
    ranks = np.array([[{t: r for t, r, _ in row}.get(t, np.nan) for t in thresholds] for row in entries])
    # an iteration that stopped early saw a part of the spectrum: what it counted are lower bounds
    sign = "=" if bool(np.all(columns["converged"])) else "≥"
    kappas = [f"κ {sign} {short(kappa, 3)}" for _, _, kappa in entries[-1]]
    return [f"> {t:.0e} λ₁".replace("e-0", "e-") for t in thresholds], ranks, kappas


def condition_figure(columns: Columns, settings: Settings) -> Figure:
    """How many eigenvalues exceed each threshold, over the steps (bars for a single step)."""
    made, (axes,) = figure()
    steps = columns["step"]
    names, ranks, kappas = ranks_at_thresholds(columns)
    bound = "" if bool(np.all(columns["converged"])) else "≥ "
    counted = f"number of eigenvalues{', lower bounds' if bound else ''}"
    if len(steps) == 1:
        drawn = axes.barh(names, ranks[0], color=BLUE, height=0.55)
        texts = [f"{bound}{int(rank)}   {kappa}" for rank, kappa in zip(ranks[0], kappas, strict=True)]
        axes.bar_label(drawn, texts, padding=5, fontsize="medium")
        axes.set_xlim(0, 1.4 * float(np.max(ranks[0], initial=1)))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(counted)
    else:
        for i, (name, colour) in enumerate(zip(names, (BLUE, GREEN, ORANGE), strict=False)):
            axes.plot(steps, ranks[:, i], color=colour, marker="o", ms=4)
            end_label(axes, (steps[-1], ranks[-1, i]), f"{name}\n{kappas[i]}", color=colour, gap=8, fontsize="small")
        axes.set_ylim(0, None)
        axes.set_xlabel("step")
        axes.set_ylabel(counted)
    title = f"Rank of the {subject_of(settings)}"
    headline(axes, title, "κ: condition number of what exceeds the threshold, at the last step")
    return made


def loss_figure(columns: Columns, settings: Settings) -> Figure:
    """Loss and gradient norm over the steps."""
    made, panels = figure(2, height=3.8)
    for axes, field, title in zip(panels, ("value", "gradient_norm"), ("Loss", "Gradient norm"), strict=True):
        axes.plot(columns["step"], columns[field], color=BLUE, marker="o", ms=4)
        scale(axes, columns[field])
        over_steps(axes, columns["step"], columns[field])
        axes.set_title(title)
    return made
