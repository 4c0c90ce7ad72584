"""The picture of K-FAC's errors: by depth, by width, and what they are made of."""

from __future__ import annotations

import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline
from runs.engine.claims import Results
from runs.second_order.factors import DEPTH, WIDTH
from runs.second_order.factors_claims import STATES, parts

_NAMES = {"kfac": "K-FAC", "ekfac": "EKFAC", "best": "best product"}
_COLOURS = {"kfac": ORANGE, "ekfac": BLUE, "best": GREY}
_MARKS = {"before": "--", "after": "-"}


def overview(results: Results) -> Figure:
    """Three panels."""
    made, (depths, widths, split) = figure(3)
    _errors(results, depths, "depth", "hidden layers", f"{WIDTH} units in each")
    _errors(results, widths, "width", "units a layer", f"{DEPTH} hidden layers")
    _split(results, split)
    return made


def _errors(results: Results, axes: Axes, kind: str, label: str, fixed: str) -> None:
    found = results.family(f"factors-{kind}-")
    sizes = [int(size) for size in found]
    for name, colour in _COLOURS.items():
        for state, mark in _MARKS.items():
            values = [[run[state][name] for run in data["runs"]] for data in found.values()]
            middle = [statistics.median(row) for row in values]
            axes.plot(sizes, middle, mark, marker=".", color=colour, label=_NAMES[name] if state == "after" else None)
            low, high = [min(row) for row in values], [max(row) for row in values]
            axes.fill_between(sizes, low, high, color=colour, alpha=0.12, lw=0)
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="relative error of the blocks")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=8)
    headline(axes, f"Errors by {kind}", f"{fixed}; dashed: before training; bands: all seeds")


def _split(results: Results, axes: Axes) -> None:
    found = results.family("factors-depth-")
    sizes = [int(size) for size in found]
    for i, (label, colour) in enumerate((("between layers", GREEN), ("factors, within layers", ORANGE))):
        for state in STATES:
            middle = [statistics.median(parts(run[state])[i] for run in data["runs"]) for data in found.values()]
            shown = label if state == "after" else None
            axes.plot(sizes, middle, _MARKS[state], marker=".", color=colour, label=shown)
    axes.set(xscale="log", ylim=(0, 1), xlabel="hidden layers", ylabel="relative to the whole matrix")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=8)
    headline(axes, "What the error is made of", "medians over seeds; dashed: before training")


PICTURES = {"second-order-factors.png": (overview, ("factors-depth-*", "factors-width-*"))}
