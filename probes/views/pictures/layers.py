"""What pictures of all layers share: a row for each layer, in maps over the steps and in bars of one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.views.pictures.axes import brief, finite, log_axis, spreads
from probes.views.pictures.style import BLUE, figure, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 32  # more layers than this have no room for a name each


def names_of(labels: Sequence[str], count: int) -> list[str]:
    """The layers' names as a picture has room for them; numbers where there are none."""
    return [literal(brief(name)) for name in labels] or [f"layer {i + 1}" for i in range(count)]


def panels_for(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels side by side, as high as so many layers take."""
    height = 2.2 + 0.24 * min(count, 2 * _NAMED)
    return figure(columns, size=(4.0 + 3.0 * columns, max(4.0, min(height, 13.0))))


def steps_map(made: Figure, axes: Axes, steps: Any, values: Any) -> None:
    """A row for each layer, a column for each step."""
    from matplotlib.colors import LogNorm

    shown = np.where(values > 0, values, np.nan)
    if np.isfinite(shown).any():
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        norm = LogNorm(low, high if high > low else 1.01 * low)
        edges = np.arange(len(steps) + 1) - 0.5
        image = axes.pcolormesh(edges, np.arange(values.shape[1] + 1) - 0.5, shown.T, cmap="viridis", norm=norm)
        colours = made.colorbar(image, ax=axes, location="bottom", shrink=0.9, pad=0.02)
        few_numbers(colours.ax)
    places = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
    axes.set_xticks(places, [str(steps[i]) for i in places])
    axes.set_xlabel("step")
    axes.grid(False)


def layer_bars(axes: Axes, values: Any, errors: Any, what: str, *, color: str = BLUE) -> None:
    """A bar for each layer, the first at the top."""
    values, errors = finite(values), np.maximum(finite(errors), 0.0)
    places = np.arange(len(values))
    axes.barh(places, values, height=0.7, color=color, alpha=0.85)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor="#222222", elinewidth=0.9)
    if spreads(values):
        few_numbers(axes)
    axes.set_xlabel(what)


def layer_dots(axes: Axes, values: Any, errors: Any, what: str, *, color: str = BLUE) -> None:
    """A dot for each layer, where numbers of several kinds share an axis."""
    values, errors = finite(values), np.maximum(finite(errors), 0.0)
    known = np.flatnonzero(np.isfinite(values))
    look: dict[str, Any] = {"fmt": "o", "ms": 4, "elinewidth": 0.9, "color": color, "label": what}
    axes.errorbar(values[known], known, xerr=errors[known], **look)


def few_numbers(axes: Axes) -> None:
    """A log axis with numbers at powers of ten, as narrow panels have room for."""
    low, high = axes.get_xlim()
    log_axis(axes, "x")
    if low <= 0 or high > 20 * low:
        axes.xaxis.set_minor_formatter(lambda value, _: "")


def layer_names(axes: Axes, names: Sequence[str]) -> None:
    """Their names beside the rows, the first at the top; every other one and so on where there are many."""
    every = -(-len(names) // _NAMED)
    axes.set_yticks(range(0, len(names), every), names[::every])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize="small")
