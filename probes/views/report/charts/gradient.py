"""The charts of the gradient: its noise, its dual norms, its alignment, and the updates of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, brief, finite
from probes.views.pictures.gradient import BATCH_RULE, GUIDE
from probes.views.pictures.style import GREY, ORANGE, sequence
from probes.views.report.charts.axes import INK, chart, dashed, layer_map, line, over_steps
from probes.views.report.page import Chart

_LINES = 12  # more layers than this are lines that nobody tells apart: the map shows them


def gradient_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Loss, norm of the gradient, and the noise scale with its standard error."""
    steps, made = columns["step"], []
    for field, title in (("loss", "Loss"), ("norm", "Norm of the gradient")):
        made.append(over_steps(title, "", [line(steps, columns[field])], y=title.lower(), values=columns[field]))
    scale = columns["noise_scale"]
    data = [line(steps, scale, errors=columns["noise_scale_stderr"])]
    made.append(over_steps("Gradient noise scale", "bars: one standard error", data, y="loss terms", values=scale))
    return made


def dual_gradient_charts(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> list[Chart]:
    """Dual norm and gap, their ratio with its smallest value, and the norm by layer."""
    steps, total, gap, mu = (finite(columns[name]) for name in ("step", "total", "gap", "mu"))
    steps = columns["step"]
    gap = np.where(gap > 0, gap, np.nan)
    both = [line(steps, total, "dual norm of the gradient"), line(steps, gap, "f − infimum", color=GREY)]
    norm, infimum = settings.get("norm", "auto"), short(settings.get("infimum", 0.0))
    remark = f"loss per radius; norm {norm}, infimum {infimum}"
    made = [over_steps("Gradient in dual norms", remark, both, values=np.r_[total, gap])]
    ratio = [line(steps, mu, color=ORANGE)]
    if np.isfinite(mu).any():
        least = float(np.nanmin(mu))
        ratio.append(dashed(steps[[0, -1]], [least] * 2, f"smallest: {short(least)}", color=GREY))
    made.append(over_steps("Ratio: the μ of μ-KL", "dual norm / (f − infimum)", ratio, y="μ", values=mu))
    return [*made, *layer_map("Dual norm by tensor", steps, finite(columns["dual"]), labels, "dual norm")]


def batch_rule_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """L and mu, then rho and sigma with their standard errors, and the batch and step size of the rule."""
    steps, made = columns["step"], []
    for title, remark, fields in BATCH_RULE:
        data = [
            line(steps, finite(columns[field]), name, color=color, errors=columns.get(f"{field}_stderr"))
            for field, name, color in fields
        ]
        made.append(over_steps(title, remark, data, values=np.r_[tuple(finite(columns[f]) for f, _, _ in fields)]))
    return made


def alignment_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Squared cosines stacked up to their total, and the total with its bound."""
    steps, cosines, total = columns["step"], finite(columns["cosines"]), finite(columns["total"])
    k, of = cosines.shape[1], settings.get("of", "gradient")
    bounds = finite(columns["total_bound"])
    reach = np.array([np.minimum(bounds, total), np.minimum(bounds, np.maximum(1.0 - total, 0.0))])
    one = len(steps) == 1
    data = []
    for i, colour in enumerate(sequence(k)):
        look: dict[str, Any] = {"mode": "lines", "stackgroup": "one", "fillcolor": f"{colour}B0", "line": {"width": 0}}
        data.append(line(steps, cosines[:, i], f"eigenvector {i + 1}", color=colour, **({} if one else look)))
    data.append(line(steps, total, f"total of {k}", color=INK, errors=reach))
    title = f"The {of} in the top {k} eigenvectors"
    limits = {"range": [0, 1.02]}
    return [over_steps(title, "bars: bounds on the error", data, y="share of the square", yaxis=limits)]


def updates_charts(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> list[Chart]:
    """Norm of the update over that of the tensor: a line for each of few tensors, a map for several."""
    steps, ratios = columns["step"], finite(columns["ratio"])
    ratios = np.where(ratios > 0, ratios, np.nan)
    count = ratios.shape[1]
    names = [str(name) for name in labels] or [f"tensor {i + 1}" for i in range(count)]
    chosen = range(count) if count <= _LINES else np.linspace(0, count - 1, _LINES).round().astype(int)
    data = [
        line(steps, ratios[:, i], brief(names[i]), color=colour, line={"dash": _dash(names[i])})
        for i, colour in zip(chosen, sequence(len(chosen)), strict=True)
    ]
    if len(steps):
        data.append(dashed(steps[[0, -1]], [GUIDE] * 2, f"guide: {short(GUIDE)}"))
    per = np.unique(columns["steps"][np.isfinite(ratios).any(axis=1)])
    over = "" if not len(per) else f"{per[0]}" if len(per) == 1 else f"{per[0]} to {per[-1]}"
    remarks = [f"each update over {over} step{'s' * (over != '1')} of training"] * bool(over)
    remarks += ["biases dotted"] * any(name.endswith("bias") for name in names)
    remarks += [f"{len(chosen)} of {count} tensors; the map has them all"] * (count > _LINES)
    title, axis = "Relative size of the updates", "norm of update / norm of tensor"
    made = [chart(title, "; ".join(remarks), data, x="step", y=axis, log=True)]
    return [*made, *layer_map("Relative size of the updates by tensor", steps, ratios, names, "ratio")]


def _dash(name: str) -> str:
    return "dot" if name.endswith("bias") else "solid"
