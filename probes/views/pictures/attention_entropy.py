"""The picture of attention: the entropy of every head between its bound and that of attention spread evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.views.pictures.axes import Columns, Settings, finite, legend, line, over_steps
from probes.views.pictures.layers import layer_dots, layer_names, names_of, panels_for
from probes.views.pictures.style import BLUE, GREY, ORANGE, headline, sequence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REMARK = "mean over the layer's heads; as a share of attention that is spread evenly"
MARKS = (("uniform", "spread evenly", GREY), ("bound", "lower bound", ORANGE), ("entropy", "head", BLUE))
_LINES = 12  # more layers than this are drawn as some of them


def attention_entropy_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Of the last step a dot for each head between its bounds; before it the layers' means over the steps."""
    steps, several = columns["step"], len(columns["step"]) > 1
    count = columns["entropy"].shape[1]
    made, panels = panels_for(count, 2 if several else 1)
    names = names_of(labels, count)
    if several:
        shown = some(count)
        for i, color in zip(shown, sequence(len(shown)), strict=True):
            line(panels[0], steps, shares(columns)[:, i], color=color, label=names[i])
        over_steps(panels[0], steps, shares(columns))
        panels[0].set_ylim(0, 1.03)
        headline(panels[0], "Entropy of attention", REMARK)
        legend(panels[0])
    axes = panels[-1]
    for field, name, color in MARKS:
        for head, values in enumerate(finite(columns[field][-1]).T):
            layer_dots(axes, values, np.zeros(count), "" if head else name, color=color)
    axes.set_xlabel("nats")
    axes.set_xlim(left=-0.03 * axes.get_xlim()[1])
    headline(axes, f"Heads at step {int(steps[-1])}", "each between its lower bound and log(keys that it sees)")
    legend(axes)
    layer_names(axes, names)
    return made


def shares(columns: Columns) -> Any:
    """`(steps, layers)`: the mean over heads of the entropies, over that of attention which is spread evenly."""
    entropy, uniform = finite(columns["entropy"]), finite(columns["uniform"])
    known = np.isfinite(entropy) & np.isfinite(uniform)
    total = np.where(known, uniform, 0.0).sum(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, np.where(known, entropy, 0.0).sum(2) / total, np.nan)


def some(count: int) -> list[int]:
    """Of many layers as many as lines can be told apart, the first and the last among them."""
    return sorted({round(float(i)) for i in np.linspace(0, count - 1, min(count, _LINES))})
