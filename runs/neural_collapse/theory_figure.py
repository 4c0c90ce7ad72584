"""The picture of what `runs.neural_collapse` computes: the paper's heat map, and NC0 of the sign rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import GREY, figure, headline, sequence
from runs.engine.claims import Results
from runs.neural_collapse.theory import HEAT_MAP
from runs.shared.figures import with_colours

_DASHED = (0, (4, 2))


def theorems_figure(results: Results) -> Figure:
    """The paper's printed cells on the recursion's lines, and the sign rules in the unconstrained-features model."""
    made, (cells, free, fixed) = figure(3, height=4.6)
    found = results.one("theory-heat-map")
    for (momentum, printed), row, colour in zip(HEAT_MAP.items(), found["sgd"], sequence(len(HEAT_MAP)), strict=True):
        cells.plot(found["decays"], row, color=colour, lw=1.2)
        cells.plot(found["decays"], printed, "o", ms=4, color=colour, mfc="none", label=f"β = {momentum:g}")
    cells.set_xscale("symlog", linthresh=2.5e-5, linscale=0.5)
    cells.set_xticks([0, 1e-4, 1e-3], ["0", "1e-4", "1e-3"])
    cells.set(xlabel="weight decay λ", ylabel="NC0 = ‖Wᵀ1‖")
    headline(cells, "The paper's ResNet9", "marks: its 56 printed cells, lines: theorem 3.2 from one number")
    cells.legend(loc="lower left")
    with results.trace("theory-sign-decoupled") as trace:
        for run, colour in with_colours(results.one("theory-sign-decoupled")["runs"]):
            columns = trace[f"classes-{run['classes']}"].read()
            free.plot(columns["step"], columns["value"], color=colour, label=f"K = {run['classes']}")
            free.axhline(run["limit"], color=colour, ls=_DASHED, lw=1.0)
    free.set(yscale="log", ylim=(0.3, None), xlabel="step")
    headline(free, "Signs, decoupled decay", "unconstrained features; dashed: √K (K − 2) / λ")
    free.legend(loc="lower right")
    _coupled(results, fixed)
    return made


def _coupled(results: Results, axes: Axes) -> None:
    """Signs with coupled decay: fixed step sizes, and one that decays; the largest value of each stretch of steps."""
    etas = [run["eta"] for run in results.one("theory-sign-coupled")["runs"]]
    lines = {f"η = {eta:g}": (eta, "theory-sign-coupled", f"eta-{eta:g}") for eta in etas}
    colours = [*sequence(len(lines)), GREY]
    with results.trace("theory-sign-decaying") as trace:
        first = float(trace["nc0"]["rate"][0])
    lines["η → 0"] = (first, "theory-sign-decaying", "nc0")
    for (label, (eta, job, group)), colour in zip(lines.items(), colours, strict=True):
        with results.trace(job) as trace:
            values = np.asarray(trace[group]["value"])[1:]
        width = max(1, len(values) // 300)
        starts = np.arange(0, len(values), width)
        look: dict[str, Any] = {"ls": _DASHED, "zorder": 1} if colour == GREY else {}
        highest = np.maximum.reduceat(values, starts)
        axes.plot(eta * (starts + width), highest, color=colour, lw=1.4, label=label, **look)
    axes.set(xscale="log", xlim=(0.5, None), yscale="log", xlabel="first η × step")
    text = "rises, falls, and ends at the order of K³ᐟ² η unless η decays; upper envelopes"
    headline(axes, "Signs, coupled decay", text)
    axes.legend(loc="lower left")
