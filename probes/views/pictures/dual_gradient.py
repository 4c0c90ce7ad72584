"""The picture of the gradient in dual norms: how large it is, and against the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from probes.numbers import short
from probes.views.pictures.axes import finite, legend, log_axis, over_steps, scale
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, note


def dual_gradient_figure(columns: Mapping[str, Any], settings: Mapping[str, Any]) -> Figure:
    """Dual norm and gap over the steps; beside them their ratio, with its smallest value as a line."""
    made, (left, right) = figure(2)
    steps, total, gap, mu = (finite(columns[name]) for name in ("step", "total", "gap", "mu"))
    positive = np.where(gap > 0, gap, np.nan)
    left.plot(steps, total, color=BLUE, marker=".", label="dual norm of the gradient")
    left.plot(steps, positive, color=GREY, marker=".", label="f - infimum")
    log_axis(left)
    over_steps(left, steps, total)
    left.set_title("Gradient in dual norms", pad=22)
    note(left, f"loss per radius; norm {settings.get('norm', 'auto')}, infimum {short(settings.get('infimum', 0.0))}")
    legend(left)
    right.plot(steps, mu, color=ORANGE, marker=".")
    if np.isfinite(mu).any():
        least = float(np.nanmin(mu))
        right.axhline(least, color=GREY, lw=1.3, ls=(0, (5, 3)), label=f"smallest: {short(least)}")
    scale(right, mu)
    over_steps(right, steps, mu)
    right.set_title("Ratio: the mu of mu-KL", pad=22)
    note(right, "dual norm / (f - infimum)")
    legend(right)
    return made
