"""The pictures of `runs.function_class`: maps of least T, frontiers by size, SGD's paths, bounds and measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.regularity import Trajectory, alpha_beta_frontier, angles
from probes.numbers import short
from probes.views.pictures.function_class import draw_map, signed_axis
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, sequence
from runs.engine.claims import Results
from runs.function_class.criteria import GAP, first_part, runs_of
from runs.shared.figures import panel_grid, save_pictures

_DASHED = (0, (4, 2))
FAMILIES = {
    "mlp-*": ("MLP", "width"),
    "cnn-*": ("CNN", "channels"),
    "depth-*": ("Residual network", "blocks"),
    "batch-*": ("CNN", "batch"),
    "optimizer-*": ("CNN", "optimizer"),
    "text": ("Text", "network"),
}
TEXT = ("lstm", "transformer")


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part whose jobs are finished."""
    pictures = {
        "maps.png": (maps_figure, ["mlp-*", "lstm"]),
        "frontiers.png": (frontiers_figure, ["mlp-*"]),
        "plateaus.png": (plateaus_figure, ["lstm", "half-space"]),
        "theorems.png": (theorems_figure, ["theorem-*"]),
    }
    return save_pictures(results, folder, pictures)


def maps_figure(results: Results) -> Figure:
    """Least T over all rows of all seeds: an MLP on digits and the LSTM on text."""
    made, panels = figure(2, height=4.8)
    widths = list(results.data("mlp-*"))
    chosen = {"mlp-64" if "mlp-64" in widths else widths[-1]: "digits", "lstm": "text"}
    for axes, (job, data) in zip(panels, chosen.items(), strict=True):
        runs = runs_of(results, job)
        draw_map(made, axes, Trajectory.concatenate(runs))
        name = "LSTM" if job == "lstm" else f"MLP of width {job.rpartition('-')[2]}"
        headline(axes, f"{name} on {data}: least T of (α, β)")
        outlined = f"outlined: T ≥ 0 at all {len(runs[0])} steps of {len(runs)} runs, each with its own x_K"
        axes.texts[0].set_text(f"{outlined}; dotted: gap {GAP}")
    return made


def frontiers_figure(results: Results) -> Figure:
    """The smallest beta by gap, a colour for each size, over all seeds."""
    made, panels = panel_grid(2, 3, (15.0, 8.4))
    gaps = np.geomspace(0.02, 2, 61)
    for axes, (pattern, (name, what)) in zip(panels.flat, FAMILIES.items(), strict=True):
        jobs = [job for job in TEXT if results.data(job)] if name == "Text" else list(results.data(pattern))
        heights = []
        for job, colour in zip(jobs, sequence(len(jobs)), strict=True):
            t = Trajectory.concatenate(runs_of(results, job))
            for quantile, dash in ((1.0, "-"), (0.99, _DASHED)):
                betas = np.array([found.beta for found in alpha_beta_frontier(t, gaps, quantile=quantile)])
                betas[np.isinf(betas)] = np.nan
                heights.append(betas)
                label = job.rpartition("-")[2] if quantile == 1 else None
                axes.plot(gaps, betas, color=colour, ls=dash, lw=1.8 if quantile == 1 else 1.1, label=label)
        axes.axvline(GAP, color=GREY, lw=0.9, ls=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: short(value, 3))
        signed_axis(axes, np.concatenate(heights) if heights else [])
        axes.set(xlabel="gap α − β", ylabel="smallest β")
        headline(axes, f"{name} by {what}", "all rows of all seeds; dashed: 99 % of the rows")
        axes.legend(loc="upper left")
    return made


def plateaus_figure(results: Results) -> Figure:
    """Cosine between the whole gradient and the way to the end point: the LSTM, and half-space learning."""
    made, panels = figure(3, height=4.4)
    runs = runs_of(results, "lstm", full=True)
    for number, (t, colour) in enumerate(zip(runs, sequence(len(runs)), strict=True)):
        panels[0].plot(t.steps, angles(t), color=colour, lw=1.4, label=f"seed {number}")
    panels[0].legend(loc="lower right")
    _cosine(panels[0], "LSTM", "whole loss on 8192 bytes")
    runs = runs_of(results, "half-space", full=True)
    least = [np.nanmin(angles(t)[first_part(t, 0.5)]) for t in runs]
    for t, low in zip(runs, least, strict=True):
        colour, width, alpha = (ORANGE, 1.2, 1.0) if low < 0 else (BLUE, 0.6, 0.4)
        panels[1].plot(t.steps, angles(t), color=colour, lw=width, alpha=alpha)
        panels[2].plot(t.steps, t.grad_norm, color=colour, lw=width, alpha=alpha)
    negative = sum(v < 0 for v in least)
    _cosine(panels[1], "Half-space learning", f"orange: negative in the first half, {negative} of {len(runs)}")
    panels[2].set_yscale("log")
    headline(panels[2], "Half-space learning: gradient norm", "whole loss, SGD from random points at distance 4")
    for axes in panels:
        axes.set_xlabel("step")
    return made


def _cosine(axes: Axes, name: str, text: str) -> None:
    axes.axhline(0, color=GREY, lw=1.0)
    axes.set_ylim(-1.05, 1.05)
    headline(axes, f"{name}: cosine of ∇f and x − x_K", text)


def theorems_figure(results: Results) -> Figure:
    """Bound and measured by the number of steps."""
    made, (axes,) = figure(1, height=4.8)
    found = results.data("theorem-*")
    for (name, data), colour in zip(found.items(), [*sequence(max(len(found) - 1, 1)), ORANGE], strict=False):
        steps = [row["steps"] for row in data["rows"]]
        part = name.rpartition("-")[2]
        label = "γmax / √(k+1)" if data["rule"] == "decreasing" else f"γ = {part} γmax"
        axes.plot(steps, [row["bound"] for row in data["rows"]], color=colour, ls=_DASHED, lw=1.3)
        axes.plot(steps, [row["measured"] for row in data["rows"]], color=colour, marker="o", ms=4, label=label)
    data = next(iter(found.values()))
    floor = data["rows"][0]["neighbourhood"]
    marks = (floor, "neighbourhood 2βσ²/(α − β)"), (data["first"], "f(x₀) − f*: above it a bound is vacuous")
    for height, text in marks:
        axes.axhline(height, color=GREY, lw=1.0, ls=":")
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (0, 3), "textcoords": "offset points"}
        axes.annotate(text, (0.01, height), color=GREY, fontsize=9, **place)
    axes.set(xscale="log", yscale="log", xlabel="steps K", ylabel="min over k < K of E f(x_k) − f*")
    remark = "dashed: Theorems 1 and 4 with α − β = 0.5; solid: measured, from x₀ = 3"
    headline(axes, "SGD on the two-function problem: bound and measured", remark)
    axes.legend(loc="upper right")
    return made
