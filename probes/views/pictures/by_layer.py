"""Pictures of all layers: how sharp each is over the steps, its trace and ranks in the end, how unlike they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import (
    Columns,
    Settings,
    bars,
    brief,
    finite,
    legend,
    log_axis,
    over_steps,
    spreads,
    subject_of,
)
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 32  # more layers than this have no room for a name each


def by_layer_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Largest eigenvalue of each layer over the steps as a map; beside it the last step's, with traces and ranks."""
    top, steps = finite(columns["values"])[:, :, 0], columns["step"]
    count, several = top.shape[1], len(columns["step"]) > 1
    height = 2.2 + 0.24 * min(count, 2 * _NAMED)
    made, panels = figure(4 if several else 3, size=(16.0 if several else 13.0, max(4.0, min(height, 13.0))))
    last = {name: columns[name][-1] for name in columns if name != "step"}
    if several:
        _map(made, panels[0], steps, top)
        headline(panels[0], "Largest eigenvalue by layer", "colour on a log scale; empty: not positive")
    panels = panels[several:]
    at = f"At step {int(steps[-1])}" if several else f"Blocks of the {subject_of(settings)}, step {int(steps[-1])}"
    _bars(panels[0], top[-1], last["residuals"][:, 0], "largest eigenvalue")
    headline(panels[0], at, "bars: residuals, a bound on each error")
    _bars(panels[1], last["trace"], last["trace_stderr"], "trace")
    headline(panels[1], "Trace", "bars: one standard error")
    _bars(panels[2], last["effective_rank"], last["effective_rank_stderr"], "effective rank", color=ORANGE, dots=True)
    _bars(panels[2], last["stable_rank"], last["stable_rank_stderr"], "stable rank", dots=True)
    _bars(panels[2], last["size"], np.zeros(count), "parameters", color=GREY, dots=True)
    _few_numbers(panels[2])
    panels[2].set_xlim(0.7, 1.6 * float(np.max(last["size"])))
    panels[2].set_xlabel("directions; grey: all")
    headline(panels[2], "Ranks", "orange: effective, blue: stable; bars: one standard error")
    names = [literal(brief(name)) for name in labels] or [f"layer {i + 1}" for i in range(count)]
    for axes in made.axes[: 3 + several]:
        _layers(axes, names if axes is made.axes[0] else [""] * count)
    return made


def heterogeneity_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Distances between all layers at the last step as a map; beside it their mean over the steps, above its floor."""
    steps, last, several = columns["step"], finite(columns["distances"][-1]), len(columns["step"]) > 1
    count = len(last)
    made, panels = figure(2 if several else 1, size=(13.0 if several else 7.4, 5.6))
    image = panels[0].imshow(last, cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
    made.colorbar(image, ax=panels[0], label="Jensen-Shannon distance")
    names = [literal(brief(name)) for name in labels] or [f"layer {i + 1}" for i in range(count)]
    _layers(panels[0], names)
    panels[0].grid(False)
    panels[0].set_xticks([])
    own = "; each by its 10th largest eigenvalue" if settings.get("normalise") == "tenth" else ""
    remark = f"0: alike, 1: nothing in common{own}; σ = {short(float(columns['sigma'][-1]), 2)}"
    if not several:
        mean, error = (float(columns[name][-1]) for name in ("mean", "mean_stderr"))
        floor = float(columns["mean_floor"][-1])
        remark += f"\nmean {short(mean, 2)} ± {short(error, 1)}; of a layer to itself {short(floor, 2)}"
    headline(panels[0], f"How unlike the layers' spectra are, step {int(steps[-1])}", remark)
    if several:
        bars(panels[1], steps, columns["mean"], columns["mean_stderr"], label="mean over all pairs")
        floor = finite(columns["mean_floor"])
        panels[1].plot(steps, floor, color=GREY, lw=1.3, ls=(0, (5, 3)), label="of a layer to itself")
        over_steps(panels[1], steps, columns["mean"])
        headline(panels[1], "Mean distance", "bars: one standard error; near the dashed line it is noise")
        panels[1].set_ylim(0, None)
        legend(panels[1])
    return made


def _map(made: Figure, axes: Axes, steps: Any, values: Any) -> None:
    """A row for each layer, a column for each step."""
    from matplotlib.colors import LogNorm

    shown = np.where(values > 0, values, np.nan)
    if np.isfinite(shown).any():
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        norm = LogNorm(low, high if high > low else 1.01 * low)
        edges = np.arange(len(steps) + 1) - 0.5
        image = axes.pcolormesh(edges, np.arange(values.shape[1] + 1) - 0.5, shown.T, cmap="viridis", norm=norm)
        colours = made.colorbar(image, ax=axes, location="bottom", shrink=0.9, pad=0.02)
        _few_numbers(colours.ax)
    places = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
    axes.set_xticks(places, [str(steps[i]) for i in places])
    axes.set_xlabel("step")
    axes.grid(False)


def _bars(axes: Axes, values: Any, errors: Any, what: str, *, color: str = BLUE, dots: bool = False) -> None:
    """Of each layer, the first at the top; dots where numbers of several kinds share an axis."""
    values, errors = finite(values), np.maximum(finite(errors), 0.0)
    places = np.arange(len(values))
    if dots:
        axes.errorbar(values, places, xerr=errors, fmt="o", ms=4, elinewidth=0.9, color=color, label=what)
        return
    axes.barh(places, values, height=0.7, color=color, alpha=0.85)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor="#222222", elinewidth=0.9)
    if spreads(values):
        _few_numbers(axes)
    axes.set_xlabel(what)


def _few_numbers(axes: Axes) -> None:
    """A log axis with numbers at powers of ten, as narrow panels have room for."""
    low, high = axes.get_xlim()
    log_axis(axes, "x")
    if low <= 0 or high > 20 * low:
        axes.xaxis.set_minor_formatter(lambda value, _: "")


def _layers(axes: Axes, names: Sequence[str]) -> None:
    """Their names beside the rows, the first at the top; every other one and so on where there are many."""
    every = -(-len(names) // _NAMED)
    axes.set_yticks(range(0, len(names), every), names[::every])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize="small")
