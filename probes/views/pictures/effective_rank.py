"""The picture of ranks: how many directions activations and weights of each layer have, and how many units sleep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite, legend
from probes.views.pictures.layers import few_numbers, layer_dots, layer_names, names_of, panels_for, steps_map
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is shown of activations and of weights: the field, its name, its colour.
RANKS = (("effective_rank", "effective", ORANGE), ("stable_rank", "stable", BLUE), ("units", "all", GREY))
WEIGHT_RANKS = tuple(
    (field, name, color)
    for (_, name, color), field in zip(
        RANKS, ("weight_effective_rank", "weight_stable_rank", "weight_rank"), strict=True
    )
)
SHARES = (
    ("nuclear", "nuclear norm", GREEN),
    ("nearly_dormant", "nearly dormant", ORANGE),
    ("dormant", "dormant", BLUE),
)


def effective_rank_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Effective ranks of activations over the steps as a map; beside it the last step's, of weights, and shares."""
    steps, several = columns["step"], len(columns["step"]) > 1
    ranks = finite(columns["effective_rank"])
    count = ranks.shape[1]
    made, panels = panels_for(count, 4 if several else 3)
    if several:
        steps_map(made, panels[0], steps, ranks)
        headline(panels[0], "Effective rank by layer", f"of the layers' {at_of(settings)}; empty: none")
    last = f"step {int(steps[-1])}"
    for axes, fields, title in zip(
        panels[several:],
        (RANKS, WEIGHT_RANKS, SHARES),
        (f"Activations, {last}", f"Weights, {last}", "Spread and sleep"),
        strict=True,
    ):
        for field, name, color in fields[::-1]:
            layer_dots(axes, columns[field][-1], np.zeros(count), name, color=color)
        shares = fields is SHARES
        headline(axes, title, nearly(settings) if shares else "grey: the largest that there could be")
        axes.set_xlabel("share" if shares else "directions")
        if shares:
            axes.set_xlim(-0.03, 1.03)
        else:
            few_numbers(axes)
        if fields is not WEIGHT_RANKS:
            legend(axes)
    names = names_of(labels, count)
    for axes in made.axes[: 3 + several]:
        layer_names(axes, names if axes is made.axes[0] else [""] * count)
    return made


def at_of(settings: Settings) -> str:
    """What the activations are, in a word."""
    return f"{settings.get('at', 'input')}s"


def nearly(settings: Settings) -> str:
    """Which units are nearly dormant."""
    return f"nearly dormant: at most {short(float(settings.get('tau', 0.025)), 2)} of the layer's mean"
