"""The picture of `runs.scion`: the loss by batch and step size, and the constants of the rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.regularity import huber_line
from probes.views.pictures.axes import log_axis
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, headline
from runs.engine.claims import Results
from runs.scion.criteria import best_losses, best_lr
from runs.scion.jobs import mean_loss
from runs.shared.figures import panel_grid, save_pictures, with_colours


def figures(results: Results, folder: Path) -> list[Path]:
    """One PNG, where no job failed."""
    needs = ("batch-*", "steps-*", "constants")
    return [] if results.failures("*") else save_pictures(results, folder, {"scion.png": (overview, needs)})


def overview(results: Results) -> Figure:
    """Six panels."""
    made, panels = panel_grid(2, 3, (15.5, 9.0))
    for axes, draw in zip(panels.flat, (_batches, _steps, _best_steps, _constants, _variance, _steep), strict=True):
        draw(results, axes)
    return made


def _ticks(axes: Axes, sizes: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(b) for b in sizes])
    axes.set_xlabel("batch, images")


def _batches(results: Results, axes: Axes) -> None:
    for prefix, colour, label in (("batch-", ORANGE, "one pass"), ("steps-", GREY, "58 steps at each batch")):
        found = best_losses(results, prefix)
        means, errors = zip(*found.values(), strict=True)
        axes.errorbar([*found], means, yerr=[2 * e for e in errors], marker="o", color=colour, capsize=3, label=label)
    _ticks(axes, [*best_losses(results)])
    axes.set_ylabel("test loss at the end")
    axes.legend()
    headline(axes, "Batch sizes at the best step size", "Fashion-MNIST; bars: two standard errors")


def _steps(results: Results, axes: Axes) -> None:
    jobs = {int(b): rows for b, rows in results.family("batch-").items()}
    for (b, rows), colour in with_colours(jobs.items()):
        known = [(row["lr"], mean_loss(row)) for row in rows if np.isfinite(mean_loss(row))]
        axes.plot(*zip(*known, strict=True), ".-", color=colour, lw=1.4, label=str(b))
    log_axis(axes, "x")
    axes.set(xlabel="step size b, share of the radius", ylabel="test loss at the end")
    axes.legend(title="batch", fontsize=8)
    headline(axes, "Step sizes", "in one pass")


def _best_steps(results: Results, axes: Axes) -> None:
    found = {int(b): best_lr(rows) for b, rows in results.family("batch-").items()}
    axes.plot([*found], [*found.values()], "o-", color=ORANGE, label="best step size")
    middle = sorted(found)[len(found) // 2]
    for power, style in ((1.0, "--"), (0.5, ":")):
        guide = [found[middle] * (b / middle) ** power for b in found]
        axes.plot([*found], guide, style, color=GREY, label=f"batch^{power:g}")
    _ticks(axes, [*found])
    log_axis(axes)
    axes.set_ylabel("step size b, share of the radius")
    axes.legend()
    headline(axes, "Best step size by batch", "parabolas through the best and its neighbours")


def _constants(results: Results, axes: Axes) -> None:
    for name, colour in (("L", BLUE), ("rho", GREEN), ("sigma", ORANGE)):
        for i, run in enumerate(results.one("constants")):
            values = np.array([row[name] for row in run["rows"]])
            seen, label = [row["seen"] / 1000 for row in run["rows"]], name if not i else None
            axes.plot(seen, values / np.median(values[len(values) // 2 :]), color=colour, lw=1.3, label=label)
    log_axis(axes)
    axes.set(xlabel="thousands of images seen", ylabel="over the median of the second half")
    axes.legend()
    headline(axes, "Constants of the batch rule", "three runs at batch 64")


def _variance(results: Results, axes: Axes) -> None:
    run = results.one("constants")[0]
    for kind, colour in (("random", BLUE), ("sorted", GREY)):
        for i, at in enumerate(run["variance"]):
            label = {"random": "random batches", "sorted": "batches of one class"}[kind] if not i else None
            axes.plot([int(b) for b in at[kind]], [*at[kind].values()], "o-", color=colour, lw=1.2, label=label)
    sizes = [int(b) for b in run["variance"][0]["random"]]
    _ticks(axes, sizes)
    first = run["variance"][-1]["random"][str(sizes[0])]
    axes.plot(sizes, [first * sizes[0] / b for b in sizes], "--", color=GREEN, lw=1.4, label="1 / batch")
    log_axis(axes)
    axes.set_ylabel("variance of the gradient")
    axes.legend(fontsize=8)
    headline(axes, "Noise of batches", "three moments of one run")


def _steep(results: Results, axes: Axes) -> None:
    pairs = results.one("constants")[0]["pairs"]
    x, y = np.array(pairs).T
    half = len(x) // 2
    axes.plot(x[:half], y[:half], ".", color=GREY, ms=5, label="first half of the run")
    axes.plot(x[half:], y[half:], ".", color=BLUE, ms=6, label="second half")
    found = huber_line(x[half:], y[half:])
    ends = np.array([0.0, x[half:].max()])
    axes.plot(ends, found.intercept + found.slope * ends, color=ORANGE, label=f"Huber's line: slope {found.slope:.3g}")
    axes.set(xlabel="loss of a batch of 64", ylabel="dual norm of its gradient, loss per radius", ylim=(0, None))
    axes.legend(fontsize=8)
    headline(axes, "mu-KL as the paper fits it", "every tenth step's own batch")
