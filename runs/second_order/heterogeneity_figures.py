"""The picture of block heterogeneity: distances by unit and width, losses by step size, and layers that are scaled."""

from __future__ import annotations

import math
import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, headline
from runs.engine.claims import Results
from runs.second_order.heterogeneity import MLPS, NETWORKS, SCALES
from runs.second_order.heterogeneity_claims import NAMES, gaps, interval, means
from runs.shared.figures import panel_grid

_COLOURS = {"cnn": BLUE, "vit": ORANGE, "text": GREEN}
_CHOICES = {"code": "as in the\nauthors' code", "range": "by the\nown range", "tenth": "each block by\nits 10th"}
_METHODS = {"sgd": ("SGD", ORANGE), "adam": ("Adam", BLUE), "block-sgd": ("SGD, steps by block", GREEN)}
_SHOWN = {"cnn": "CNN", "vit": "Transformer", "text": "Transformer on text"}


def overview(results: Results) -> Figure:
    """Distances and scaled layers above, losses by step size below."""
    made, ((first, second, third), below) = panel_grid(2, 3, (13.5, 8.2))
    _distances(results, first)
    _scaled(results, second)
    _lost(results, third)
    for axes, name in zip(below, NETWORKS, strict=True):
        _losses(results, axes, name)
    return made


def _distances(results: Results, axes: Axes) -> None:
    for i, name in enumerate(NETWORKS):
        for j, choice in enumerate(_CHOICES):
            place = j + 0.2 * (i - 1)
            values, floors = means(results, name, choice), means(results, name, choice, "floor")
            axes.plot(
                [place] * len(values), values, "o", ms=5, color=_COLOURS[name], label=NAMES[name] if j == 0 else None
            )
            axes.plot([place - 0.07, place + 0.07], [statistics.median(floors)] * 2, color=GREY, lw=2)
    axes.set(ylim=(0, None), xticks=range(len(_CHOICES)), xticklabels=_CHOICES.values())
    axes.set_ylabel("mean distance of blocks")
    axes.legend(fontsize=8)
    headline(axes, "How unlike blocks are", "Jensen-Shannon; one dot a seed; grey: floor of noise")


def _scaled(results: Results, axes: Axes) -> None:
    for choice, colour in (("code", ORANGE), ("range", BLUE), ("tenth", GREY)):
        rows = [means(results, name, choice) for name in MLPS]
        axes.plot(
            SCALES,
            [statistics.median(row) for row in rows],
            ".-",
            color=colour,
            label=_CHOICES[choice].replace("\n", " "),
        )
        axes.fill_between(
            SCALES, [min(row) for row in rows], [max(row) for row in rows], color=colour, alpha=0.15, lw=0
        )
    _scales(axes)
    axes.set(ylim=(0, None), ylabel="mean distance of blocks")
    axes.legend(fontsize=8)
    headline(axes, "The same MLP with scaled layers", "layers times s and 1/s in turn; bands: all seeds")


def _lost(results: Results, axes: Axes) -> None:
    for method in ("sgd", "block-sgd"):
        label, colour = _METHODS[method]
        rows = [gaps(results, name, method) for name in MLPS]
        middle = [math.exp(statistics.fmean(row)) for row in rows]
        ends = [[math.exp(end) for end in interval(row)] for row in rows]
        axes.plot(SCALES, middle, ".-", color=colour, label=label)
        axes.fill_between(SCALES, [low for low, _ in ends], [high for _, high in ends], color=colour, alpha=0.15, lw=0)
    axes.axhline(1.0, color=GREY, lw=1, ls="--")
    _scales(axes)
    axes.set(yscale="log", ylabel="late loss over Adam's")
    axes.set_yticks([0.5, 1, 2, 4], ["1/2", "1", "2", "4"], minor=False)
    axes.set_yticks([], minor=True)
    axes.legend(fontsize=8)
    headline(axes, "What SGD loses on them", "geometric means with 95 % intervals over seeds")


def _scales(axes: Axes) -> None:
    axes.set(xscale="log", xlabel="s")
    axes.set_xticks(SCALES, [str(scale) for scale in SCALES], minor=False)
    axes.set_xticks([], minor=True)


def _losses(results: Results, axes: Axes, name: str) -> None:
    for method, (label, colour) in _METHODS.items():
        grid = results.one(f"training-{name}")["losses"][method]
        rows = {float(lr): [math.inf if loss is None else loss for loss in row] for lr, row in grid.items()}
        kept = {lr: row for lr, row in rows.items() if math.isfinite(statistics.median(row))}
        axes.plot([*kept], [statistics.median(row) for row in kept.values()], ".-", color=colour, label=label)
        for lr, row in kept.items():
            finite = [loss for loss in row if math.isfinite(loss)]
            axes.plot([lr] * len(finite), finite, ".", ms=3, alpha=0.5, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="step size", ylabel="late training loss")
    axes.legend(fontsize=8)
    headline(axes, _SHOWN[name], "medians over seeds; dots: seeds that did not diverge")


PICTURES = {"second-order-heterogeneity.png": (overview, ("heterogeneity-*", "training-*"))}
