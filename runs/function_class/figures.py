"""The pictures of `runs.function_class`: what the page opens with, maps of least T, and frontiers by size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.regularity import Trajectory, alpha_beta_frontier, angles
from probes.numbers import short
from probes.views.pictures.function_class import draw_map, signed_axis
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, sequence
from runs.engine.claims import Results
from runs.function_class import criteria
from runs.function_class.criteria import GAP, jobs_of, rows_of
from runs.function_class.exact_claims import PUBLISHED
from runs.shared.figures import panel_grid, save_pictures, with_colours

_DASHED = (0, (4, 2))
FAMILIES = {
    "mlp-*": ("MLP", "width"),
    "batch-*": ("MLP", "batch"),
    "cnn-*": ("CNN", "channels"),
    "depth-*": ("Residual network", "blocks"),
    "optimizer-*": ("CNN", "optimizer"),
    "text": ("Text", "network"),
}
TEXT = "lstm-*", "transformer-*"


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part whose jobs are finished."""
    pictures = {
        "overview.png": (overview_figure, ["lstm-*", "mlp-*", "batch-*", "half-space-*", "theorem-*"]),
        "maps.png": (maps_figure, ["mlp-*", "lstm-*"]),
        "frontiers.png": (frontiers_figure, ["mlp-*"]),
    }
    return save_pictures(results, folder, pictures)


def overview_figure(results: Results) -> Figure:
    """The LSTM's plateau, beta by width and batch, half-space learning over seeds, bounds beside what is measured."""
    made, panels = panel_grid(2, 2, (12.5, 9.0))
    _plateau(panels[0, 0], results)
    _sizes(panels[0, 1], results)
    _half_space(panels[1, 0], results)
    _bounds(panels[1, 1], results)
    return made


def _plateau(axes: Axes, results: Results) -> None:
    runs = [rows_of(results, job, "whole") for job in results.data("lstm-*")]
    steps, cosines = runs[0].steps, np.array([angles(t) for t in runs])
    axes.axhline(0, color=GREY, lw=1.0)
    axes.fill_between(steps, cosines.min(axis=0), cosines.max(axis=0), color=BLUE, alpha=0.2, lw=0)
    axes.plot(steps, cosines.mean(axis=0), color=BLUE, lw=1.8)
    axes.set(xlabel="step", ylabel="cosine of ∇f and x − x_K (whole loss)", xscale="symlog")
    axes.set_ylim(min(-0.05, float(cosines.min()) - 0.01), 0.4)
    axes.xaxis.set_major_formatter(lambda value, _: short(value, 4))
    other = axes.twinx()
    other.plot(steps, np.mean([t.loss for t in runs], axis=0), color=ORANGE, lw=1.4)
    other.set_ylabel("loss (orange)")
    headline(axes, "LSTM: how −∇f points towards the end of its path", f"mean, least and largest of {len(runs)} seeds")


def _sizes(axes: Axes, results: Results) -> None:
    heights = []
    for pattern, label, colour in (("mlp-*", "by width m", BLUE), ("batch-*", "by batch", ORANGE)):
        found = criteria.family(results, pattern)
        sizes = [int(size) for size in found]
        for name, dash in (("seeds", "-"), ("most", _DASHED)):
            middle = [float(np.median(getattr(s, name))) for s in found.values()]
            text = f"{label}, all steps" if name == "seeds" else f"{label}, 99 % of the steps"
            axes.plot(sizes, middle, color=colour, ls=dash, lw=1.6, label=text)
            heights += middle
        for size, s in zip(sizes, found.values(), strict=True):
            axes.scatter([size] * len(s.seeds), s.seeds, color=colour, s=14, alpha=0.7)
            heights += s.seeds
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: short(value, 4))
    axes.minorticks_off()
    signed_axis(axes, heights)
    axes.set(xlabel="width, or batch", ylabel=f"smallest β at gap {GAP}")
    headline(axes, "MLPs: smallest β", "widths on the digits, batches on Fashion-MNIST; dots: seeds; lines: medians")
    axes.legend(loc="best", fontsize=8)


def _half_space(axes: Axes, results: Results) -> None:
    edges = np.geomspace(0.1, 1e6, 29)
    for loss, colour in (("logistic", GREY), ("sigmoid", BLUE)):
        betas = [run["beta"] for run in results.one(f"half-space-{loss}")["runs"]]
        axes.hist(np.clip(betas, edges[0], edges[-1]), bins=list(edges), color=colour, alpha=0.8, label=loss)
    axes.axvline(PUBLISHED, color=ORANGE, lw=1.6, label="33,282: the paper's path")
    axes.set(xscale="log", xlabel=f"smallest β at gap {GAP}", ylabel="paths")
    headline(axes, "Half-space learning: smallest β", f"{len(betas)} paths, each on samples of its own")
    axes.legend(loc=(0.33, 0.78), fontsize=8)


def _bounds(axes: Axes, results: Results) -> None:
    names = {"constant-1": "Theorem 1", "decreasing-1": "Theorem 4", "decsps-1": "Theorem 5", "adagrad-10": "Theorem 7"}
    for (name, label), colour in with_colours(names.items()):
        rows = results.one(f"theorem-{name}")["rows"]
        steps = [row["steps"] for row in rows]
        axes.plot(steps, [row["bound"] for row in rows], color=colour, ls=_DASHED, lw=1.3)
        axes.plot(steps, [row["measured"] for row in rows], color=colour, marker="o", ms=3.5, label=label)
    axes.set(xscale="log", yscale="log", xlabel="steps K", ylabel="least mean f(x_k) − f*, k < K")
    headline(axes, "Bounds (dashed) and what is measured", "two-function problem from x = 3, α − β = 0.5")
    axes.legend(loc="lower left", fontsize=8)


def maps_figure(results: Results) -> Figure:
    """Least T over all rows of all seeds: an MLP on images and the LSTM on text."""
    made, panels = figure(2, height=4.8)
    widths = list(jobs_of(results, "mlp-*"))
    chosen = {"mlp-128" if "mlp-128" in widths else widths[-1]: "digits", "lstm": "text"}
    for axes, (name, data) in zip(panels, chosen.items(), strict=True):
        runs = [rows_of(results, job) for job in jobs_of(results, f"{name}-*")[name]]
        draw_map(made, axes, Trajectory.concatenate(runs))
        network = "LSTM" if name == "lstm" else f"MLP of width {name.rpartition('-')[2]}"
        headline(axes, f"{network} on {data}: least T of (α, β)")
        outlined = f"outlined: T ≥ 0 at all {len(runs[0])} steps of {len(runs)} runs, each with its own x_K"
        axes.texts[0].set_text(f"{outlined}; dotted: gap {GAP}")
    return made


def frontiers_figure(results: Results) -> Figure:
    """The smallest beta by gap, a colour for each size, over all seeds."""
    made, panels = panel_grid(2, 3, (15.0, 8.4))
    gaps = np.geomspace(0.02, 2, 61)
    for axes, (pattern, (name, what)) in zip(panels.flat, FAMILIES.items(), strict=True):
        found = jobs_of(results, *(TEXT if pattern == "text" else (pattern,)))
        heights = []
        for (config, jobs), colour in zip(found.items(), sequence(len(found)), strict=True):
            t = Trajectory.concatenate([rows_of(results, job) for job in jobs])
            for quantile, dash in ((1.0, "-"), (0.99, _DASHED)):
                betas = np.array([pair.beta for pair in alpha_beta_frontier(t, gaps, quantile=quantile)])
                betas[np.isinf(betas)] = np.nan
                heights.append(betas)
                label = config.rpartition("-")[2] if quantile == 1 else None
                axes.plot(gaps, betas, color=colour, ls=dash, lw=1.8 if quantile == 1 else 1.1, label=label)
        axes.axvline(GAP, color=GREY, lw=0.9, ls=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: short(value, 3))
        signed_axis(axes, np.concatenate(heights) if heights else [])
        axes.set(xlabel="gap α − β", ylabel="smallest β")
        headline(axes, f"{name} by {what}", "all rows of all seeds; dashed: 99 % of the rows")
        axes.legend(loc="upper left")
    return made
