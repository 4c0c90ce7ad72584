"""The pictures of `runs.edge_of_stability`: the threshold 2/eta is a dashed line in all, so that it is seen first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from probes.numbers import short
from probes.outliers import outliers
from probes.views.pictures.density import density_figure
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, note, save, sequence, style
from runs.edge_of_stability.criteria import ratios_of, suffix
from runs.engine.claims import Results
from runs.shared.figures import save_pictures

_DASHED = (0, (5, 3))


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part of the experiment whose jobs are finished."""
    pictures = {
        "gradient-descent.png": (descent_figure, ["gd-*"]),
        "sgd.png": (batches_figure, ["sgd-*"]),
        "minima.png": (minima_figure, ["keep"]),
        "outliers.png": (outliers_figure, ["digits-*", "blobs-*"]),
    }
    written = save_pictures(results, folder, pictures)
    for name in list(results.data("digits-*"))[-1:]:
        with style(), results.trace(name) as trace:
            made = density_figure(trace["density"].read(), {"operator": "hessian"}, trace["spectrum"].read())
            written.append(save(made, folder / f"density-{name}.png"))
    return written


def descent_figure(results: Results) -> Figure:
    """Sharpness and loss of gradient descent over the steps, a colour for each step size."""
    found = results.data("gd-*")
    made, (left, right) = figure(2, height=4.8)
    for (name, data), colour in zip(found.items(), sequence(len(found)), strict=True):
        with results.trace(name) as trace:
            sharpness, loss = trace["sharpness"].read(), trace["loss"].read()
        threshold = 2 / data["rate"]
        left.axhline(threshold, color=colour, ls=_DASHED, lw=1.1, zorder=1)
        left.plot(sharpness["step"], sharpness["value"], color=colour, lw=1.5)
        label_end(left, f"η = {data['rate']:g}", threshold, colour)
        right.plot(*thinned(loss["step"], loss["value"]), color=colour, lw=1.0, label=f"η = {data['rate']:g}")
    for axes in (left, right):
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xlabel("step of gradient descent")
    left.set_title("Sharpness λmax of gradient descent, against 2/η", pad=22)
    note(left, "dashed: 2/η of the step size in the same colour")
    right.set_title("Loss of gradient descent", pad=22)
    note(right, "half square error on all training images, every step")
    right.legend(loc="upper right")
    return made


def batches_figure(results: Results) -> Figure:
    """Sharpness of the whole loss, and batch sharpness, over the steps of SGD, a colour for each batch size."""
    made, panels = figure(2, height=4.8)
    groups = ("sharpness", "batch-sharpness")
    titles = ("λmax under SGD, against 2/η", "Batch sharpness under SGD, against 2/η")
    top = 1.3
    for axes, group, title in zip(panels, groups, titles, strict=True):
        ratios = ratios_of(results, "sgd-*", group)
        top = max([top, *(1.05 * float(r.max()) for r in ratios.values())])
        for (name, ratio), colour in zip(ratios.items(), sequence(len(ratios)), strict=True):
            with results.trace(name) as trace:
                steps = trace[group]["step"]
                errors = trace[group]["stderr"] * results.one(name)["rate"] / 2 if "batch" in group else 0 * ratio
            axes.plot(steps, ratio, color=colour, lw=1.5, label=f"batch of {suffix(name)}")
            axes.fill_between(steps, ratio - 2 * errors, ratio + 2 * errors, color=colour, alpha=0.18, lw=0)
        threshold_line(axes)
        axes.set_xlabel("step of SGD")
        axes.set_title(title, pad=22)
    for axes in panels:
        axes.set_ylim(0, top)
    panels[0].set_ylabel("in units of 2/η")
    panels[0].legend(loc="lower right")
    rate = next(iter(results.data("sgd-*").values()))["rate"]
    note(panels[0], f"largest eigenvalue of the whole loss; η = {rate:g} for all")
    note(panels[1], "curvature of mini-batches along their own gradients, ± two standard errors")
    return made


def minima_figure(results: Results) -> Figure:
    """The trace of the Hessian over the epochs of SGD that starts at gradient descent's minimum."""
    made, (axes,) = figure(1, height=4.6)
    runs = results.one("keep")["runs"]
    for run, colour in zip(runs, sequence(len(runs)), strict=True):
        with results.trace("keep") as trace:
            records = trace[f"trace-{run['ratio']}"].read()
        half = run["rate"] / 2
        bars: dict[str, Any] = {"yerr": 2 * half * records["stderr"], "capsize": 2, "elinewidth": 0.9}
        label = f"η = {run['rate']:.2g}: from {run['ratio']:g} × 2/η"
        if not run["kept"]:
            label += f", diverged in epoch {run['epochs']}"
        axes.errorbar(
            records["step"], half * records["value"], color=colour, marker="o", ms=3.5, lw=1.4, label=label, **bars
        )
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    threshold_line(axes)
    axes.set_xlabel("epoch of SGD with batches of one image, from a minimum of gradient descent")
    axes.set_ylabel("tr(H) in units of 2/η")
    axes.legend(*[part[::-1] for part in axes.get_legend_handles_labels()], loc="upper right")
    axes.set_title("The trace of the Hessian under SGD from one minimum", pad=22)
    note(axes, "one line for each step size η of SGD; bars: two standard errors")
    return made


def outliers_figure(results: Results) -> Figure:
    """The largest eigenvalues after training by number of classes: digits beside Gaussian clusters."""
    made, panels = figure(2, height=5.0)
    for axes, pattern, title in zip(panels, ("digits-*", "blobs-*"), ("Digits", "Gaussian clusters"), strict=True):
        found = results.data(pattern)
        for row, (name, data) in enumerate(found.items()):
            with results.trace(name) as trace:
                values = np.asarray(trace["spectrum"]["values"][-1])
            values = values[values > 0] / values[0]
            apart = outliers(values)
            above = values > apart.edge
            for mask, colour in ((above, ORANGE), (~above, BLUE)):
                axes.plot(values[mask], np.full(mask.sum(), row), "|", ms=20, mew=1.8, color=colour)
            told = f"{data['classes']} classes: {apart.count} above the widest gap (× {short(apart.ratio, 3)})"
            axes.annotate(
                told, (1.0, row), xytext=(0, 14), textcoords="offset points", ha="right", fontsize=9.5, color="#333333"
            )
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.set_xlim(None, 1.15)
        axes.set_ylim(len(found) - 0.6, -0.6)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("eigenvalue / largest eigenvalue")
        axes.set_title(f"{title}: outliers of the trained network", pad=22)
    note(panels[0], "orange: above the widest gap in log spacing; one outlier a class was expected")
    return made


# -- what they share -----------------------------------------------------------------------------------------


def plain_numbers(axis: Axis) -> None:
    """A log axis with plain numbers at 1, 2 and 5."""
    axis.set_tick_params(which="both", length=3.5, pad=3.5)  # the labels of both on one line
    axis.set_major_formatter(lambda value, _: short(value, 3))
    axis.set_minor_formatter(lambda value, _: short(value, 3) if f"{value:e}"[0] in "25" else "")


def threshold_line(axes: Axes) -> None:
    """The dashed line at 1, named."""
    axes.axhline(1, color=GREY, ls=_DASHED, lw=1.4, zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axes.annotate(
        "2/η",
        (0.012, 1),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=GREY,
        va="bottom",
        fontsize=10.5,
        bbox=box,
    )


def label_end(axes: Axes, text: str, height: float, colour: Any) -> None:
    """A label at the right edge, beside what it names."""
    axes.annotate(
        text,
        (1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        color=colour,
        va="center",
        fontsize=9.5,
        annotation_clip=False,
    )


def thinned(steps: Iterable[int], values: Any, points: int = 1500) -> tuple[Any, Any]:
    """At most so many points: a line of thousands of zigzags hides the others."""
    steps, values = np.asarray(list(steps)), np.asarray(values)
    every = max(1, len(steps) // points)
    return steps[::every], values[::every]
