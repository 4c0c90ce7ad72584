"""The pictures of `runs.edge_of_stability`: the threshold 2/eta is a dashed line in all, so that it is seen first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from probes.numbers import short
from probes.outliers import outliers
from probes.views.pictures.density import density_figure
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, note, save, style
from runs.edge_of_stability.criteria import ratios_of, suffix
from runs.engine.claims import Results
from runs.shared.figures import save_pictures, with_colours

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
    made, (left, right) = figure(2, height=4.8)
    for (name, data), colour in with_colours(results.data("gd-*").items()):
        with results.trace(name) as trace:
            sharpness, loss = trace["sharpness"].read(), trace["loss"].read()
        threshold, told = 2 / data["rate"], f"η = {data['rate']:g}"
        left.axhline(threshold, color=colour, ls=_DASHED, lw=1.1, zorder=1)
        left.plot(sharpness["step"], sharpness["value"], color=colour, lw=1.5)
        label(left, told, (1.0, threshold), (6, 0), colour, va="center", fontsize=9.5, annotation_clip=False)
        right.plot(*thinned(loss["step"], loss["value"]), color=colour, lw=1.0, label=told)
    for axes in (left, right):
        axes.set(yscale="log", xlabel="step of gradient descent")
        plain_numbers(axes.yaxis)
    text = "dashed: 2/η of the step size in the same colour"
    headline(left, "Sharpness λmax of gradient descent, against 2/η", text)
    headline(right, "Loss of gradient descent", "half square error on all training images, every step")
    right.legend(loc="upper right")
    return made


def batches_figure(results: Results) -> Figure:
    """Sharpness of the whole loss, and batch sharpness, over the steps of SGD, a colour for each batch size."""
    made, panels = figure(2, height=4.8)
    rate = next(iter(results.data("sgd-*").values()))["rate"]
    along = "curvature of mini-batches along their own gradients, ± two standard errors"
    groups = {
        "sharpness": ("λmax", f"largest eigenvalue of the whole loss; η = {rate:g} for all"),
        "batch-sharpness": ("Batch sharpness", along),
    }
    top = 1.3
    for axes, (group, (title, text)) in zip(panels, groups.items(), strict=True):
        ratios = ratios_of(results, "sgd-*", group)
        top = max([top, *(1.05 * float(r.max()) for r in ratios.values())])
        for (name, ratio), colour in with_colours(ratios.items()):
            with results.trace(name) as trace:
                steps = trace[group]["step"]
                errors = trace[group]["stderr"] * results.one(name)["rate"] / 2 if "batch" in group else 0 * ratio
            axes.plot(steps, ratio, color=colour, lw=1.5, label=f"batch of {suffix(name)}")
            axes.fill_between(steps, ratio - 2 * errors, ratio + 2 * errors, color=colour, alpha=0.18, lw=0)
        threshold_line(axes)
        axes.set_xlabel("step of SGD")
        headline(axes, f"{title} under SGD, against 2/η", text)
    for axes in panels:
        axes.set_ylim(0, top)
    panels[0].set_ylabel("in units of 2/η")
    panels[0].legend(loc="lower right")
    return made


def minima_figure(results: Results) -> Figure:
    """The trace of the Hessian over the epochs of SGD that starts at gradient descent's minimum."""
    made, (axes,) = figure(1, height=4.6)
    for run, colour in with_colours(results.one("keep")["runs"]):
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
    text = "one line for each step size η of SGD; bars: two standard errors"
    headline(axes, "The trace of the Hessian under SGD from one minimum", text)
    axes.legend(*[part[::-1] for part in axes.get_legend_handles_labels()], loc="upper right")
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
            place: dict[str, Any] = {"xytext": (0, 14), "textcoords": "offset points", "ha": "right"}
            axes.annotate(told, (1.0, row), fontsize=9.5, color="#333333", **place)
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.set(xlim=(None, 1.15), ylim=(len(found) - 0.6, -0.6), yticks=[], xlabel="eigenvalue / largest eigenvalue")
        axes.grid(axis="y", visible=False)
        headline(axes, f"{title}: outliers of the trained network")
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
    label(axes, "2/η", (0.012, 1), (0, 3), GREY, va="bottom", fontsize=10.5, bbox=box)


def label(axes: Axes, text: str, at: tuple[float, float], offset: tuple[int, int], colour: Any, **look: Any) -> None:
    """Text at (fraction of the width, height in the data), moved by so many points."""
    scales: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, at, xytext=offset, color=colour, **scales, **look)


def thinned(steps: Any, values: Any, points: int = 1500) -> tuple[Any, Any]:
    """At most so many points: a line of thousands of zigzags hides the others."""
    every = max(1, len(steps) // points)
    return steps[::every], values[::every]
