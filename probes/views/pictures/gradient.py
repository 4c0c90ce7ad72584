"""Pictures of the gradient over the steps: its noise, its dual norms, its alignment, and the updates of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import (
    Columns,
    Settings,
    bars,
    brief,
    finish,
    finite,
    is_crowded,
    legend,
    line,
    log_axis,
    over_steps,
)
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, literal, sequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GUIDE = 1e-3  # the rule of thumb for a healthy ratio of update to weight
# panels of the batch rule: title, remark, and (field, name, colour) of each line
BATCH_RULE = (
    (
        "Smoothness and steepness",
        "bars: one standard error",
        (("L", "L", BLUE), ("batch_L", "L of two batches", GREY), ("mu", "mu", ORANGE)),
    ),
    ("Noise", "bars: one standard error", (("rho", "rho", BLUE), ("sigma", "sigma", ORANGE))),
    ("Batch and step size", "up to factors", (("batch", "batch, loss terms", BLUE), ("lr", "lr", ORANGE))),
)
_NAMED = 20  # more layers than this do not fit a legend


def gradient_figure(columns: Columns, settings: Settings) -> Figure:
    """Loss, norm of the gradient, and the noise scale with its standard error."""
    made, panels = figure(3, size=(13.2, 3.9))
    steps = columns["step"]
    for axes, field, title in zip(panels, ("loss", "norm"), ("Loss", "Norm of the gradient"), strict=False):
        line(axes, steps, columns[field])
        finish(axes, steps, columns[field], title)
    bars(panels[2], steps, columns["noise_scale"], columns["noise_scale_stderr"])
    title, remark = "Gradient noise scale", "bars: one standard error"
    finish(panels[2], steps, columns["noise_scale"], title, remark, ylabel="loss terms")
    return made


def dual_gradient_figure(columns: Columns, settings: Settings) -> Figure:
    """Dual norm and gap over the steps; beside them their ratio, with its smallest value as a line."""
    made, (left, right) = figure(2)
    steps, total, gap, mu = (finite(columns[name]) for name in ("step", "total", "gap", "mu"))
    left.plot(steps, total, color=BLUE, marker=".", label="dual norm of the gradient")
    left.plot(steps, np.where(gap > 0, gap, np.nan), color=GREY, marker=".", label="f - infimum")
    log_axis(left)
    over_steps(left, steps, total)
    norm, infimum = settings.get("norm", "auto"), short(settings.get("infimum", 0.0))
    headline(left, "Gradient in dual norms", f"loss per radius; norm {norm}, infimum {infimum}")
    legend(left)
    right.plot(steps, mu, color=ORANGE, marker=".")
    if np.isfinite(mu).any():
        least = float(np.nanmin(mu))
        right.axhline(least, color=GREY, lw=1.3, ls=(0, (5, 3)), label=f"smallest: {short(least)}")
    finish(right, steps, mu, "Ratio: the mu of mu-KL", "dual norm / (f - infimum)")
    return made


def batch_rule_figure(columns: Columns, settings: Settings) -> Figure:
    """L and mu, rho and sigma with their standard errors, and the batch and step size of the rule."""
    steps, (made, panels) = columns["step"], figure(len(BATCH_RULE), size=(13.2, 3.9))
    for axes, (title, remark, fields) in zip(panels, BATCH_RULE, strict=True):
        for field, name, color in fields:
            errors = columns.get(f"{field}_stderr", np.zeros(len(steps)))
            bars(axes, steps, columns[field], errors, color=color, label=name)
        finish(axes, steps, np.r_[tuple(finite(columns[field]) for field, _, _ in fields)], title, remark)
    return made


def alignment_figure(columns: Columns, settings: Settings) -> Figure:
    """Squared cosines stacked up to their total with its bound; beside it each by itself with its own."""
    steps, cosines, total = columns["step"], finite(columns["cosines"]), finite(columns["total"])
    k, of = cosines.shape[1], settings.get("of", "gradient")
    made, panels = figure(2)
    _stack(panels[0], steps, cosines)
    # beyond 0 and 1 there is nothing that a bound could say
    reach = _reach(total, columns["total_bound"])
    bars(panels[0], steps, total, reach, color="#222222", label=f"total of {k}")
    for i, colour in enumerate(sequence(k)):
        bars(panels[1], steps, cosines[:, i], _reach(cosines[:, i], columns["bounds"][:, i]), color=colour)
    for axes in panels:
        over_steps(axes, steps, cosines)
        axes.set_ylim(0, 1.02)
    panels[0].set_ylabel("share of the square")
    headline(panels[0], f"The {of} in the top {k} eigenvectors", "bars: bounds on the error")
    panels[1].set_ylabel("squared cosine")
    headline(panels[1], "Each eigenvector", "bars: bounds on the error")
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles[::-1], labels[::-1], loc="outside right upper")
    return made


def _stack(axes: Axes, steps: Any, cosines: Any) -> None:
    """Areas over the steps that have values, bars for a single one, the first eigenvector at the bottom."""
    k = cosines.shape[1]
    colours = sequence(k)
    seen = np.isfinite(cosines).any(axis=1)
    x, parts = steps[seen], np.nan_to_num(cosines[seen])
    names = [f"eigenvector {i + 1}" for i in range(k)]
    if len(x) > 1:
        axes.stackplot(x, parts.T, colors=colours, labels=names, alpha=0.75, lw=0)
        return
    floor = np.zeros(len(x))
    for i in range(k):
        axes.bar(x, parts[:, i], bottom=floor, width=0.4, color=[colours[i]], alpha=0.75, label=names[i])
        floor = floor + parts[:, i]


def _reach(values: Any, bounds: Any) -> Any:
    """How far a bar goes below and above a share, `(2, steps)`: within 0 and 1."""
    bounds = finite(bounds)
    return np.array([np.minimum(bounds, values), np.minimum(bounds, np.maximum(1.0 - values, 0.0))])


def updates_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Norm of the update over that of the tensor, a line per layer, on a log axis with the guide at 1e-3."""
    made, (axes,) = figure(height=4.8)
    steps, ratios = columns["step"], finite(columns["ratio"])
    count = ratios.shape[1]
    names = labels or [f"tensor {i + 1}" for i in range(count)]
    stride = math.ceil(count / _NAMED)
    for i, colour in enumerate(sequence(count)):
        positive = np.where(ratios[:, i] > 0, ratios[:, i], np.nan)
        label = literal(brief(names[i])) if i % stride == 0 else ""
        dash = (0, (2, 1.5)) if str(names[i]).endswith("bias") else "-"
        line(axes, steps, positive, color=colour, label=label, ms=2 if is_crowded(steps) else 6, lw=1.4, ls=dash)
    log_axis(axes)
    axes.axhline(GUIDE, color=ORANGE, lw=1.3, ls=(0, (5, 3)), zorder=1.5, label="guide: 0.001")
    over_steps(axes, steps, ratios)
    axes.set_ylabel("norm of update / norm of tensor")
    per = np.unique(columns["steps"][np.isfinite(ratios).any(axis=1)])
    over = "" if not len(per) else f"{per[0]}" if len(per) == 1 else f"{per[0]} to {per[-1]}"
    remarks = [f"each update over {over} step{'s' * (over != '1')} of training"] * bool(over)
    remarks += ["biases dotted"] * any(str(name).endswith("bias") for name in names)
    remarks += [f"every {stride}th layer is named"] * (stride > 1)
    headline(axes, "Relative size of the updates", "; ".join(remarks))
    made.legend(loc="outside right upper", labelcolor=GREY)
    return made
