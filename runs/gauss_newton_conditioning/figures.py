"""The pictures of `runs.gauss_newton_conditioning`: geometric means, bands of one standard deviation as a factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, sequence
from runs.engine.claims import Results
from runs.gauss_newton_conditioning.criteria import Array, Rows, chosen, distinct, geometric, grouped, rows, spread
from runs.gauss_newton_conditioning.jobs import NAMES, SKIPS
from runs.gauss_newton_conditioning.training_claims import best_rates
from runs.shared.figures import panel_grid, save_pictures, with_colours

_DASHED = (0, (4, 2))


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part whose jobs are finished."""
    pictures = {
        "overview.png": (overview, ["first-*", "proportional-*", "whitening", "hidden"]),
        "skips.png": (skips_figure, ["skip-*"]),
        "layers.png": (layers_figure, ["slopes", "convolution"]),
        "batch-norm.png": (norm_figure, ["norm-*"]),
        "pruning.png": (pruning_figure, ["pruning-*"]),
        "spectra.png": (spectra_figure, ["products", "training-*"]),
        "training.png": (training_figure, ["training-*", "wide-*"]),
    }
    return save_pictures(results, folder, pictures)


def overview(results: Results) -> Figure:
    """Depth and width, width in proportion to depth, bounds, white data."""
    made, ((depth, proportional), (bounds, data)) = panel_grid(2, 2, (11.6, 9.2))
    table = rows(results, "first-*")
    data_of = next(iter(results.data("first-*").values()))
    name = f"white {NAMES[data_of['data']]}, d = {data_of['inputs']}"
    for width, colour in with_colours(distinct(table, "width")):
        part = chosen(table, width=width)
        line(depth, part, "depth", f"m = {width:g}", color=colour, marker="o")
        line(depth, part, "depth", "", values=part["bound"], band=False, color=colour, ls=_DASHED, lw=1.2)
    finish_depths(depth, "Linear networks by depth and width", f"{name}; dashed: the bound", table)
    table = chosen(rows(results, "proportional-*"), fixed=0.0)
    for factor, colour in with_colours(distinct(table, "factor")):
        line(proportional, chosen(table, factor=factor), "depth", f"m = {factor:g} (L − 1)", color=colour, marker="o")
    finish_depths(proportional, "Width in proportion to depth", f"{name}; L − 1 hidden layers", table)
    proportional.set_ylim(top=100)
    proportional.legend(loc="upper right", ncols=2)
    table = rows(results, "hidden")
    line(bounds, table, "width", "maximum bound (∞ below m = d)", values=table["loose"], color=ORANGE, marker="s")
    line(bounds, table, "width", "bound: convex combination", values=table["bound"], color=BLUE, lw=5, alpha=0.35)
    line(bounds, table, "width", "κ", color="#222222", marker="o", ms=4, lw=1.2)
    told = f"{name}; κ lies on the bound"
    finish(bounds, "One hidden layer: two upper bounds", told, ylabel="κ and bounds", xlabel="hidden units m")
    table = rows(results, "whitening")
    for white, colour, label in ((0.0, ORANGE, "as they are"), (1.0, BLUE, "white")):
        line(data, chosen(table, white=white), "depth", label, color=colour, marker="o")
    found = results.one("whitening")
    told = f"{NAMES[data_of['data']]}, d = {found['inputs']}, width {found['width']}"
    finish_depths(data, "White data against data as they are", told, table)
    return made


def spectra_figure(results: Results) -> Figure:
    """kappa of the products before and behind a layer; kappa by the rank that is assumed, before and after training."""
    made, (products, ranks) = figure(2, height=4.9)
    table = rows(results, "products", "products")
    for depth, colour in with_colours(distinct(table, "depth")):
        part = chosen(table, depth=depth)
        line(
            products, part, "layer", f"L = {depth:g}", values=part["right"], band=False, color=colour, marker="o", ms=4
        )
        line(products, part, "layer", "", values=part["left"], band=False, color=colour, ls=_DASHED)
    told = f"white data, m = {results.one('products')['width']}; solid: before the layer, dashed: behind it"
    finish(products, "κ of partial products", told, xlabel="layer", xticks=distinct(table, "layer"))
    (job, *_) = results.data("training-*")
    with results.trace(job) as trace:
        spectrum = trace["spectrum"].read()
    for epoch, values, colour in zip(spectrum["epochs"], spectrum["eigenvalues"], (BLUE, ORANGE), strict=True):
        order = np.arange(1, len(values) + 1)
        ranks.plot(order, values[-1] / values[::-1], color=colour, label=f"epoch {epoch:g}")
    told = "largest over r-th eigenvalue, three linear layers; the rank is full"
    finish(ranks, "κ by the rank that is assumed", told, xlabel="rank r")
    return made


def skips_figure(results: Results) -> Figure:
    """kappa by depth for several skips, a panel for each shape."""
    found = results.data("skip-*")
    made, panels = figure(len(found), height=4.9)
    colours = ["#222222", *sequence(len(SKIPS) - 1)]
    for axes, (job, data) in zip(panels, found.items(), strict=True):
        table = rows(results, job)
        for number, (name, colour) in enumerate(zip(SKIPS, colours, strict=True)):
            part = chosen(table, skip=float(number))
            line(axes, part, "depth", f"β = {name}", band=number == 0, color=colour, marker="o", ms=4)
        d, m, k = data["widths"]
        told = "white data; black: no skip, with one standard deviation"
        kind = "Skips from all" if job == "skip-all" else "Skips"
        finish_depths(axes, f"{kind}: m = {m}, d = {d}, k = {k}", told, table)
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
    title = f"One hidden layer of leaky ReLU, m = {width:g}"
    finish(left, title, "40 images, white", ylabel="κ and bounds", xlabel="slope of negative inputs", xscale="log")
    table = rows(results, "convolution")
    for size, colour in with_colours(distinct(table, "kernel")):
        for half, dash in ((0.0, "-"), (1.0, _DASHED)):
            part = chosen(table, kernel=size, half=half)
            label = "" if half else f"kernel of {size:g}"
            line(right, part, "filters", label, band=False, color=colour, marker="o", ms=4, ls=dash)
    told = "solid: root of the covariance; dashed: half of it, as in the script"
    ticks = distinct(table, "filters")
    finish(right, "Two linear convolutions", told, xticks=ticks, xlabel="filters of each layer")
    return made


def norm_figure(results: Results) -> Figure:
    """kappa by width with and without batch norm."""
    made, (axes,) = figure(1, height=4.9)
    looks = (("no batch norm", "#222222"), ("batch norm, eval mode", BLUE), ("batch norm, train mode", ORANGE))
    table = rows(results, "norm-*")
    for number, (name, colour) in enumerate(looks):
        line(axes, chosen(table, norm=float(number)), "width", name, color=colour, marker="o")
    samples = next(iter(results.data("norm-*").values()))["samples"]
    told = f"raw pixels, 8 × 8, {samples} images"
    finish(
        axes, "One linear hidden layer and batch norm", told, xticks=distinct(table, "width"), xlabel="hidden units m"
    )
    return made


def pruning_figure(results: Results) -> Figure:
    """kappa along training and the training loss of the ResNet by the fraction pruned."""
    made, (left, right) = figure(2, height=4.9)
    table = rows(results, "pruning-*")
    fractions = distinct(table, "fraction")
    for fraction, colour in with_colours(fractions):
        label = f"{fraction:.0%} pruned"
        line(left, chosen(table, fraction=fraction), "epochs", label, band=False, color=colour, marker="o", ms=5)
    size = next(iter(results.data("pruning-*").values()))["parameters"]
    told = f"{size} parameters, pruned ones in J at 0"
    finish(left, "A pruned ResNet: κ of J Jᵀ", told, xlabel="epoch of SGD", xticks=distinct(table, "epochs"))
    table = rows(results, "pruning-*", "loss")
    jobs = len(results.data("pruning-*"))
    for fraction, colour in with_colours(fractions):
        runs = [chosen(table, fraction=fraction, job=float(number))["value"] for number in range(jobs)]
        mean = np.mean(runs, axis=0)
        right.plot(np.arange(1, len(mean) + 1), mean, color=colour, label=f"{fraction:.0%} pruned")
    told = f"mean over the epoch and {jobs} runs, pruned weights held at zero"
    finish(right, "Its training loss", told, ylabel="cross-entropy", xlabel="epoch of SGD")
    return made


def training_figure(results: Results) -> Figure:
    """kappa and bound of three linear layers in training; loss and kappa of one hidden layer by its width."""
    made, (axes, loss, kappa) = figure(3, height=4.6)
    found = results.data("training-*")
    for job, colour in zip(found, sequence(len(found) + 1), strict=False):
        table = rows(results, job)
        axes.plot(table["epochs"], table["kappa"], color=colour, marker="o", ms=3.5, label=f"κ, run {job[-1]}")
        axes.plot(table["epochs"], table["bound"], color=colour, ls=_DASHED, lw=1.2)
    axes.set(ylim=(0, None), xlabel="epoch of SGD", ylabel="κ and bound")
    axes.legend(loc="lower right")
    widths = next(iter(found.values()))["widths"]
    headline(axes, "Three linear layers in training", f"{'-'.join(map(str, widths))}, white; dashed: the bound")
    table, rates = rows(results, "wide-*"), best_rates(results)
    for (width, rate), colour in with_colours(rates.items()):
        part = chosen(table, width=width, rate=rate)
        means = [float(v.mean()) for v in grouped(part, "epochs", values=part["loss"]).values()]
        loss.plot(distinct(part, "epochs"), means, color=colour, label=f"m = {width:g}, η = {rate:g}")
        line(kappa, part, "epochs", f"m = {width:g}", color=colour)
    finish(loss, "One hidden layer by its width", "best step size of the grid", ylabel="loss", xlabel="epoch of SGD")
    finish(kappa, "κ along its training", "the same runs", xlabel="epoch of SGD")
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


def finish(axes: Axes, title: str, text: str, *, ylabel: str = "κ", **look: Any) -> None:
    """Log axis, title, note, legend; `look` is what `Axes.set` takes."""
    axes.set(yscale="log", ylabel=ylabel, **look)
    headline(axes, title, text)
    axes.legend()


def finish_depths(axes: Axes, title: str, text: str, table: Rows) -> None:
    """The same for kappa by depth, with ticks at the depths."""
    finish(axes, title, text, xticks=distinct(table, "depth"), xlabel="weight matrices L")
