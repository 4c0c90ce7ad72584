"""The pictures of `runs.edge_of_stability`: the threshold 2/eta is a dashed line in all, so that it is seen first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from probes.numbers import short
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, sequence
from runs.edge_of_stability.criteria import eigenvalues, ratios_of, share_near, smoothed
from runs.edge_of_stability.minima_claims import starts
from runs.edge_of_stability.spectrum_claims import by_clusters, by_width
from runs.engine.claims import Results
from runs.shared.figures import panel_grid, save_pictures, with_colours

_DASHED = (0, (5, 3))
SHOWN = 20  # eigenvalues


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part of the experiment whose jobs are finished."""
    spectra = ["digits-*", "clusters-*"]
    pictures = {
        "overview.png": (overview, ["square-*", "entropy-*", "edge-*", *spectra]),
        "batches.png": (batches_figure, ["sgd-*", "slow-*"]),
        "minima.png": (minima_figure, ["keep-*"]),
    }
    return save_pictures(results, folder, pictures)


def overview(results: Results) -> Figure:
    """Sharpness of gradient descent with its loss below, SGD's batch sharpness, and the eigenvalues after training."""
    made, ((square, entropy), (below, nearly), (stochastic, spectrum)) = panel_grid(3, 2, (11.6, 12.6))
    descent(results, "square-*", square, below, "square loss")
    descent(results, "entropy-*", entropy, nearly, "cross-entropy")
    edge(results, stochastic)
    outliers_panel(results, spectrum)
    return made


def descent(results: Results, pattern: str, above: Axes, below: Axes, loss: str) -> None:
    """Sharpness and loss of full-batch gradient descent over the steps, a colour for each step size."""
    runs = dict(sorted(results.data(pattern).items(), key=lambda run: run[1]["rate"]))
    ratios = ratios_of(results, pattern)
    for (name, data), colour in with_colours(runs.items()):
        with results.trace(name) as trace:
            steps, values = trace["sharpness"]["step"], trace["loss"].read()
        above.plot(steps, ratios[name], color=colour, lw=1.5, label=f"η = {data['rate']:g}")
        below.plot(values["step"], values["value"], color=colour, lw=0.9)
    threshold_line(above, right=True)
    above.set(ylim=(0, top(above)), ylabel="sharpness λmax in units of 2/η", xlabel="step of gradient descent")
    headline(above, f"Gradient descent, {loss}", "largest eigenvalue of the Hessian, every 25 steps")
    above.legend(loc="upper right", ncols=3)
    below.set(yscale="log", ylabel=loss, xlabel="step of gradient descent")
    plain_numbers(below.yaxis)
    headline(below, "Its loss", "same runs, all training images, every step")


def edge(results: Results, axes: Axes) -> None:
    """Batch sharpness and the largest eigenvalue under SGD, a colour for each batch size."""
    shown = {name: run for name, run in results.data("edge-*").items() if name.endswith("-0")}
    for (name, run), colour in zip(shown.items(), (BLUE, ORANGE), strict=False):
        (batch,) = ratios_of(results, name, group="batch-sharpness").values()
        (largest,) = ratios_of(results, name).values()
        with results.trace(name) as trace:
            steps = trace["sharpness"]["step"]
        told = f"batch of {run['batch']}, η = {run['rate']:g}"
        axes.plot(steps, smoothed(batch), color=colour, lw=1.8, label=told)
        axes.plot(steps, batch, color=colour, lw=0.7, alpha=0.35)
        axes.plot(steps, largest, color=colour, lw=1.5, ls=(0, (1, 1)))
    threshold_line(axes)
    axes.set(ylim=(0, top(axes)), ylabel="in units of 2/η", xlabel="step of SGD")
    headline(axes, "SGD, square loss", "solid: batch sharpness, median of five beside each value; dotted: λmax")
    axes.legend(loc="lower right")


def outliers_panel(results: Results, axes: Axes) -> None:
    """The largest eigenvalues after training: digits by width, clusters by their number."""
    widths, numbers = by_width(results, "digits", 10), by_clusters(results)
    digits: dict[str, Any] = {"marker": "o", "ms": 4}
    clusters: dict[str, Any] = {"marker": "s", "ms": 3, "ls": ":"}
    for looks, groups, what, colours in (
        (digits, widths, "digits, width {}", sequence(len(widths))),
        (clusters, numbers, "{} clusters", ["#F2B48C", "#E58A4E", ORANGE, "#7A3500"]),
    ):
        for (key, names), colour in zip(groups.items(), colours, strict=False):
            values = np.median([eigenvalues(results, name)[:SHOWN] for name in names], axis=0)
            share = 100 * float(np.median([share_near(results, name) for name in names]))
            label = f"{what.format(key)} ({share:.0f} %)"
            axes.plot(np.arange(1, len(values) + 1), values / values[0], color=colour, lw=1.2, label=label, **looks)
    axes.set(
        yscale="log",
        ylim=(0.04, 1.15),
        ylabel="eigenvalue / largest eigenvalue",
        xlabel="rank",
        xticks=[1, 5, 10, 15, 20],
    )
    plain_numbers(axes.yaxis)
    told = "cross-entropy, medians of seeds; in brackets the share within 1 % of the largest"
    headline(axes, "The Hessian's outliers after training", told)
    axes.legend(loc="lower left", fontsize=8.5)


def batches_figure(results: Results) -> Figure:
    """Sharpness of the whole loss, and batch sharpness, over the steps of SGD, a colour for each batch size."""
    made, panels = figure(2, height=4.8)
    groups = {"sharpness": "λmax", "batch-sharpness": "Batch sharpness"}
    for axes, (group, title) in zip(panels, groups.items(), strict=True):
        ratios = ratios_of(results, "slow-*", "sgd-*", group=group)
        for (name, ratio), colour in with_colours(ratios.items()):
            run = results.one(name)
            with results.trace(name) as trace:
                steps = trace[group]["step"]
            axes.plot(steps, ratio, color=colour, lw=1.5, label=f"batch of {run['batch']}, η = {run['rate']:g}")
        threshold_line(axes)
        axes.set(xlabel="step of SGD", ylabel="in units of 2/η", ylim=(0, top(axes)))
        headline(axes, f"{title} under SGD, against 2/η", "square loss")
    panels[0].legend(loc="center right")
    return made


def minima_figure(results: Results) -> Figure:
    """tr(H) at the end against the start, from minima of gradient descent, under SGD and gradient descent."""
    made, (axes,) = figure(1, height=5.0)
    for solver, colour, marker, label in (
        ("gd", BLUE, "o", "gradient descent"),
        ("sgd", ORANGE, "s", "SGD, batches of one"),
    ):
        runs = [run for run in starts(results, solver) if run["kept"]]
        x, y = [run["ratio"] for run in runs], [run["trace"] for run in runs]
        axes.plot(x, y, marker, color=colour, ms=6, alpha=0.75, label=label)
    gone = sorted({run["ratio"] for run in starts(results, "sgd") if not run["kept"]})
    axes.plot(gone, [1.0] * len(gone), "x", color=ORANGE, ms=9, mew=2, label="SGD diverged")
    threshold_line(axes)
    axes.set(xscale="log", yscale="log", xlabel="η tr(H) / 2 at the start", ylabel="η tr(H) / 2 at the end")
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)
    headline(axes, "From minima that fit 500 images", "each point is a run; dashed: the bound for SGD, tr(H) = 2/η")
    axes.legend(loc="upper left")
    return made


# -- what they share -----------------------------------------------------------------------------------------


def top(axes: Axes) -> float:
    """Where an axis ends on which 2/eta has room for its name."""
    return max(1.3, axes.get_ylim()[1])


def plain_numbers(axis: Axis) -> None:
    """A log axis with plain numbers at 1, 2 and 5."""
    axis.set_tick_params(which="both", length=3.5, pad=3.5)  # the labels of both on one line
    axis.set_major_formatter(lambda value, _: short(value, 3))
    axis.set_minor_formatter(lambda value, _: short(value, 3) if f"{value:e}"[0] in "25" else "")


def threshold_line(axes: Axes, *, right: bool = False) -> None:
    """The dashed line at 1, named above its left end, or below its right one."""
    axes.axhline(1, color=GREY, ls=_DASHED, lw=1.4, zorder=1)
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    look |= {"ha": "right", "va": "top"} if right else {"ha": "left", "va": "bottom"}
    axes.annotate(
        "2/η", (0.988 if right else 0.012, 1), xytext=(0, -4 if right else 3), color=GREY, fontsize=10.5, **look
    )
