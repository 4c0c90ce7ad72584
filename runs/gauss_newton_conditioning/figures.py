"""The pictures of `runs.gauss_newton_conditioning`: geometric means, bands of one standard deviation as a factor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, note, sequence
from runs.engine.claims import Results
from runs.gauss_newton_conditioning.criteria import Array, Rows, chosen, distinct, geometric, grouped, rows, spread
from runs.gauss_newton_conditioning.jobs import SKIPS
from runs.shared.figures import panel_grid, save_pictures

_DASHED = (0, (4, 2))


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part whose jobs are finished."""
    pictures = {
        "overview.png": (overview, ["digits-*", "proportional-*", "whitening", "hidden"]),
        "skips.png": (skips_figure, ["skip-*"]),
        "layers.png": (layers_figure, ["slopes", "convolution"]),
        "batch-norm.png": (norm_figure, ["norm-*", "many-*"]),
        "pruning.png": (pruning_figure, ["pruning-*"]),
        "training.png": (training_figure, ["training-*"]),
    }
    return save_pictures(results, folder, pictures)


def overview(results: Results) -> Figure:
    """Depth and width, width in proportion to depth, bounds, white data."""
    made, ((depth, proportional), (bounds, data)) = panel_grid(2, 2, (11.6, 9.2))
    by_depth(depth, rows(results, "digits-*"))
    table = chosen(rows(results, "proportional-*"), fixed=0.0)
    factors = distinct(table, "factor")
    for factor, colour in zip(factors, sequence(len(factors)), strict=True):
        line(proportional, chosen(table, factor=factor), "depth", f"m = {factor:g} L", color=colour, marker="o")
    finish(proportional, "Width in proportion to depth", "κ", "white digits", layers(table))
    by_width(bounds, rows(results, "hidden"))
    table = rows(results, "whitening")
    for white, colour, name in ((0.0, ORANGE, "as they are"), (1.0, BLUE, "white")):
        line(data, chosen(table, white=white), "depth", name, color=colour, marker="o")
    width = results.one("whitening")["width"]
    finish(data, "White data against data as they are", "κ", f"digits, width {width}", layers(table))
    return made


def by_depth(axes: Axes, table: Rows) -> None:
    """kappa and its bound by depth, a colour for each width."""
    widths = distinct(table, "width")
    for width, colour in zip(widths, sequence(len(widths)), strict=True):
        part = chosen(table, width=width)
        line(axes, part, "depth", f"m = {width:g}", color=colour, marker="o")
        line(axes, part, "depth", "", values=part["bound"], band=False, color=colour, ls=_DASHED, lw=1.2)
    finish(axes, "Linear networks by depth and width", "κ", "white digits; dashed: the bound", layers(table))


def by_width(axes: Axes, table: Rows) -> None:
    """One hidden layer: kappa, the bound that lies on it, the maximum bound."""
    line(axes, table, "width", "maximum bound (∞ below m = d)", values=table["loose"], color=ORANGE, marker="s")
    line(axes, table, "width", "bound: convex combination", values=table["bound"], color=BLUE, lw=5, alpha=0.35)
    line(axes, table, "width", "κ", color="#222222", marker="o", ms=4, lw=1.2)
    finish(axes, "One hidden layer: two upper bounds", "κ and bounds", "white digits, d = 61; κ lies on the bound")
    axes.set_xlabel("hidden units m")


def skips_figure(results: Results) -> Figure:
    """kappa by depth for several skips, a panel for each shape."""
    found = results.data("skip-*")
    made, panels = figure(len(found), height=4.9)
    shown = sequence(len(SKIPS) - 1)
    for axes, (job, data) in zip(panels, found.items(), strict=True):
        table = rows(results, job)
        for number, name in enumerate(SKIPS):
            colour = "#222222" if number == 0 else shown[number - 1]
            part = chosen(table, skip=float(number))
            line(axes, part, "depth", f"β = {name}", band=number == 0, color=colour, marker="o", ms=4)
        d, m, k = data["widths"]
        finish(
            axes,
            f"Skips: m = {m}, d = {d}, k = {k}",
            "κ",
            "white data; black: no skip, with one standard deviation",
            layers(table),
        )
    return made


def layers_figure(results: Results) -> Figure:
    """Leaky ReLU by slope with bound and estimates; convolutions by filters."""
    made, (left, right) = figure(2, height=4.9)
    table = rows(results, "slopes")
    width = distinct(table, "width")[-1]
    table = chosen(table, white=1.0, width=width)
    positive = {column: values[table["slope"] > 0] for column, values in table.items()}
    line(left, positive, "slope", "bound", values=positive["bound"], color=ORANGE, marker="s", ms=4)
    for column, name, colour, dash in (("b2", "estimate b2", GREEN, "-"), ("b15", "estimate b1.5", GREY, _DASHED)):
        line(left, positive, "slope", name, values=positive[column], band=False, color=colour, lw=1.4, ls=dash)
    line(left, positive, "slope", "κ", color=BLUE, marker="o", ms=4)
    finish(left, f"One hidden layer of leaky ReLU, m = {width:g}", "κ and bounds", "40 digits, white")
    left.set_xscale("log")
    left.set_xlabel("slope of negative inputs")
    table = rows(results, "convolution")
    sizes = distinct(table, "kernel")
    for size, colour in zip(sizes, sequence(len(sizes)), strict=True):
        for shared, dash in ((0.0, "-"), (1.0, _DASHED)):
            part = chosen(table, kernel=size, shared=shared)
            label = "" if shared else f"kernel of {size:g}"
            line(right, part, "filters", label, band=False, color=colour, marker="o", ms=4, ls=dash)
    spreads = [spread(v) for v in grouped(chosen(table, shared=0.0), "kernel", "filters").values()]
    told = f"solid: entries of the matrices (standard deviation × {np.median(spreads):.1f}); dashed: shared kernels"
    finish(right, "Two linear convolutions", "κ", told)
    right.set_xticks(distinct(table, "filters"))
    right.set_xlabel("filters of each layer")
    return made


def norm_figure(results: Results) -> Figure:
    """kappa by width with and without batch norm."""
    made, panels = figure(2, height=4.9)
    titles = {"norm-*": "More parameters than outputs", "many-*": "Fewer parameters than outputs"}
    for axes, (pattern, title) in zip(panels, titles.items(), strict=True):
        table = rows(results, pattern)
        looks = (("no batch norm", "#222222"), ("batch norm, eval mode", BLUE), ("batch norm, train mode", ORANGE))
        for number, (name, colour) in enumerate(looks):
            line(axes, chosen(table, norm=float(number)), "width", name, color=colour, marker="o")
        samples = next(iter(results.data(pattern).values()))["samples"]
        finish(axes, title, "κ", f"one hidden layer of ReLU, {samples} digits")
        axes.set_xscale("log", base=2)
        axes.set_xticks(distinct(table, "width"))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        axes.set_xlabel("hidden units m")
    return made


def pruning_figure(results: Results) -> Figure:
    """kappa and training loss of the ResNet by the fraction pruned."""
    made, (left, right) = figure(2, height=4.9)
    table = rows(results, "pruning-*")
    for trained, colour, when in ((0.0, BLUE, "at initialisation"), (1.0, ORANGE, "after training")):
        for left_out, dash in ((1.0, "-"), (0.0, _DASHED)):
            part = chosen(table, trained=trained, left_out=left_out)
            label = f"{when}, pruned weights {'not ' if left_out else ''}in J"
            line(left, part, "fraction", label, band=bool(left_out), color=colour, marker="o", ms=5, ls=dash)
    size = next(iter(results.data("pruning-*").values()))["parameters"]
    finish(left, "A pruned ResNet: κ of J Jᵀ", "κ", f"{size} parameters, batch norm in eval mode")
    left.legend(handlelength=3.6)
    left.set_xlabel("fraction of each weight tensor pruned")
    table = rows(results, "pruning-*", "loss")
    jobs, fractions = len(results.data("pruning-*")), distinct(table, "fraction")
    for fraction, colour in zip(fractions, sequence(len(fractions)), strict=True):
        runs = table["value"][table["fraction"] == fraction].reshape(jobs, -1)
        epochs = np.arange(1, runs.shape[1] + 1)
        right.plot(epochs, runs.mean(axis=0), color=colour, label=f"{fraction:.0%} pruned")
    right.set_yscale("log")
    right.legend()
    right.set_xlabel("epoch of SGD")
    right.set_ylabel("cross-entropy")
    right.set_title("Its training loss", pad=22)
    note(right, f"mean over the epoch and {jobs} runs, pruned weights held at zero")
    return made


def training_figure(results: Results) -> Figure:
    """kappa and its bound while a linear network of three layers trains."""
    made, (axes,) = figure(1, height=4.6)
    found = results.data("training-*")
    for (job, _), colour in zip(found.items(), sequence(len(found) + 1), strict=False):
        table = rows(results, job)
        axes.plot(table["epochs"], table["kappa"], color=colour, marker="o", ms=3.5, label=f"κ, run {job[-1]}")
        axes.plot(table["epochs"], table["bound"], color=colour, ls=_DASHED, lw=1.2)
    axes.set_ylim(0, None)
    axes.legend(loc="lower right")
    axes.set_xlabel("epoch of SGD")
    axes.set_ylabel("κ and bound")
    axes.set_title("Three linear layers in training", pad=22)
    note(axes, "61-160-160-10, white digits; dashed: the bound")
    return made


# -- what they share -----------------------------------------------------------------------------------------


def line(
    axes: Axes, table: Rows, key: str, label: str, *, values: Array | None = None, band: bool = True, **look: Any
) -> None:
    """The geometric mean over the rows of each value of `key`, where it is finite, with its spread."""
    groups = {k: v for (k,), v in grouped(table, key, values=values).items() if bool(np.isfinite(v).all())}
    if not groups:
        return
    x = np.array(list(groups))
    middle = np.array([geometric(v) for v in groups.values()])
    width = np.array([spread(v) for v in groups.values()])
    axes.plot(x, middle, label=label or None, **look)
    if band:
        axes.fill_between(x, middle / width, middle * width, color=look["color"], alpha=0.15, lw=0)


def layers(table: Rows) -> list[float]:
    """The depths, for the ticks."""
    return distinct(table, "depth")


def finish(axes: Axes, title: str, ylabel: str, text: str, ticks: Sequence[float] = ()) -> None:
    """Log axis, title, note, legend; ticks at the depths."""
    axes.set_yscale("log")
    axes.set_ylabel(ylabel)
    axes.set_title(title, pad=22)
    note(axes, text)
    if ticks:
        axes.set_xticks(list(ticks))
        axes.set_xlabel("weight matrices L")
    axes.legend()
