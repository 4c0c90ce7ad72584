"""The pictures of `runs.neural_collapse`: an optimizer keeps its colour, decoupled decay is dashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, note
from runs.engine.claims import Results
from runs.neural_collapse.criteria import FLOOR, chosen, counting, median, regression, runs, values
from runs.neural_collapse.decay_claims import FOUR, by_decay
from runs.neural_collapse.jobs import MOMENTUM, SETTING_OF, SHARED
from runs.neural_collapse.models import OPTIMIZERS, family
from runs.neural_collapse.optimizer_claims import NETWORKS, best_runs
from runs.neural_collapse.separable import FREE_RULES
from runs.neural_collapse.small_claims import free_runs
from runs.neural_collapse.theory_figure import theorems_figure
from runs.neural_collapse.training import Row
from runs.neural_collapse.trend_claims import cells, shares
from runs.shared.figures import save_pictures, with_colours

COLOURS = {"SGD": BLUE, "Adam": GREEN, "Signum": ORANGE, "SignSGD": ORANGE}
DASHED = (0, (4, 2))


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part whose jobs are finished."""
    pictures = {
        "training.png": (training_figure, ["setting-*"]),
        "decay.png": (decay_figure, ["grid-*"]),
        "trends.png": (trends_figure, ["grid-*", "between-*", "map-*"]),
        "small.png": (small_figure, ["separable-*", "free-*"]),
        "theorems.png": (theorems_figure, ["theory-*"]),
    }
    return save_pictures(results, folder, pictures)


def line(optimizer: str) -> dict[str, Any]:
    """The look of an optimizer."""
    dashed = optimizer.endswith("W")
    return {"color": COLOURS[family(optimizer)], "ls": DASHED if dashed else "-", "lw": 1.7}


def mark(optimizer: str) -> dict[str, Any]:
    """The look of its points: hollow with decoupled decay."""
    colour = COLOURS[family(optimizer)]
    return {"color": colour, "mfc": "none" if optimizer.endswith("W") else colour, "ls": "none", "marker": "o", "ms": 5}


def along(rows: list[Row], metric: str) -> tuple[list[int], list[float]]:
    """Steps, and the median over runs of a metric there; the end of the run comes last."""
    looks = [[*row["along"], {"step": row["steps"], **row["train"]}] for row in rows]
    steps = [look["step"] for look in looks[0]]
    return steps, [median([look[i][metric] for look in looks]) for i in range(len(steps))]


def training_figure(results: Results) -> Figure:
    """NC0 and NC3 of the ResNet, and NC3 of the MLP, along training for the six optimizers."""
    made, panels = figure(3, height=4.6)
    shown = (("resnet", "nc0"), ("resnet", "nc3"), ("mlp", "nc3"))
    for axes, (network, metric) in zip(panels, shown, strict=True):
        decay, _ = SETTING_OF[network]
        rows = chosen(runs(results, f"setting-{network}-*"), decay=decay)
        for optimizer in OPTIMIZERS:
            axes.plot(*along(chosen(rows, optimizer=optimizer), metric), **line(optimizer), label=optimizer)
        headline(axes, f"{metric.upper()}, {NETWORKS[network]}", f"λ = {decay}, momentum {MOMENTUM}; dashed: decoupled")
        label = "NC0 = ‖Wᵀ1‖" if metric == "nc0" else "NC3"
        axes.set(xlabel="training step", ylabel=label, **({"yscale": "log"} if metric == "nc0" else {"ylim": (0, 1.5)}))
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


def decay_figure(results: Results) -> Figure:
    """NC0 and NC3 of the grid by decay, and the singular values of W in the best runs."""
    made, (first, second, third) = figure(3, height=4.6)
    for axes, metric in ((first, "nc0"), (second, "nc3")):
        for optimizer in OPTIMIZERS:
            found: dict[float, list[float]] = {}
            for decays, each in by_decay(results, optimizer, metric):
                for decay, value in zip(decays, each, strict=True):
                    found.setdefault(decay, []).append(value)
            means = [float(np.exp(np.mean(np.log(found[decay])))) for decay in sorted(found)]
            axes.plot(sorted(found), means, **line(optimizer), marker="o", ms=4, label=optimizer)
        axes.set_xscale("symlog", linthresh=5e-3, linscale=0.5)
        axes.set(xlabel="weight decay λ", ylabel="NC0 = ‖Wᵀ1‖" if metric == "nc0" else "NC3")
        axes.set_xticks([0, 0.005, 0.05, 0.5, 2], ["0", "0.005", "0.05", "0.5", "2"])
    first.set_yscale("log")
    second.set_ylim(0, None)
    headline(first, "NC0 by decay", "ResNet, geometric means over rates and momenta; dashed: decoupled")
    headline(second, "NC3 by decay", "the same runs, at least 99 % train accuracy")
    first.legend(loc="lower left", ncols=2)
    for optimizer, row in best_runs(results).items():
        if optimizer in FOUR:
            found_values = np.array(row["singular"]["weight"])
            look = line(optimizer) | {"marker": "o", "ms": 4}
            third.plot(range(1, len(found_values) + 1), found_values / found_values.mean(), **look, label=optimizer)
    third.set(yscale="log", xlabel="place", ylabel="singular value of W / mean", xticks=range(1, 11))
    headline(third, "Singular values of W", "each optimizer's run with the lowest NC3; the last goes with NC0")
    third.legend(loc="lower left")
    return made


def trends_figure(results: Results) -> Figure:
    """NC3 against NC0 over the counting runs, NC3 by decay / (1 - momentum), and the way from AdamW to Adam."""
    made, (scatter, by_one, between) = figure(3, height=4.8)
    rows = counting(runs(results, "grid-*"))
    for optimizer in OPTIMIZERS:
        own = chosen(rows, optimizer=optimizer)
        scatter.plot(values(own, "nc0"), values(own, "nc3"), **mark(optimizer), alpha=0.8, label=optimizer)
    kept = [row for row in rows if row["train"]["nc0"] > FLOOR]
    x = np.log(values(kept, "nc0"))
    slope, start, explained = regression(x, values(kept, "nc3"))
    ends = np.array([x.min(), x.max()])
    scatter.plot(np.exp(ends), start + slope * ends, color=GREY, lw=1.0, ls=DASHED)
    scatter.set(xscale="log", xlabel="NC0 = ‖Wᵀ1‖", ylabel="NC3", ylim=(0, None))
    headline(scatter, "NC3 against NC0", f"ResNet's grid; {slope:.2f} by ln NC0, R² {explained:.2f}")
    scatter.legend(loc="upper left")
    found = cells(results)
    for momentum, colour in with_colours(sorted({cell[0] for cell in found})):
        own_cells = [
            (decay / (1 - momentum), row["nc3"]) for (m, decay), row in found.items() if m == momentum and decay
        ]
        by_one.plot(*zip(*own_cells, strict=True), color=colour, marker="o", ms=5, label=f"β = {momentum:g}")
    by_one.set(xscale="log", xlabel="λ / (1 − β)", ylabel="NC3", ylim=(0, None))
    headline(by_one, "Momentum acts as more decay", "SGD with coupled decay on the ResNet")
    by_one.legend()
    _shares(results, between)
    return made


def _shares(results: Results, axes: Axes) -> None:
    found, table = shares(results)
    for key, colour in (("nc0", BLUE), ("nc2", GREEN), ("nc3", ORANGE)):
        axes.plot(found, table[key], color=colour, marker="o", ms=4, label=key.upper())
    axes.set(yscale="log", xlabel=f"coupled share of the weight decay {SHARED}: AdamW (0) to Adam (1)")
    headline(axes, "From AdamW to Adam, ResNet")
    note(axes, f"test accuracy {min(table['test']):.1%} to {max(table['test']):.1%}")
    axes.legend()


def small_figure(results: Results) -> Figure:
    """NC0 of the MLP on separable data with coupled and with decoupled decay, and NC3 of unconstrained features."""
    made, (coupled, decoupled, free) = figure(3, height=4.6)
    decay = max(run["decay"] for run in results.one("separable-SGD")["runs"])
    for axes, rules in ((coupled, ("SGD", "Adam", "SignSGD")), (decoupled, ("AdamW", "SignSGDW"))):
        for rule in rules:
            run = next(run for run in results.one(f"separable-{rule}")["runs"] if run["decay"] == decay)
            axes.plot(run["steps"], np.median(run["nc0"], axis=1), **line(rule), label=rule)
        axes.set(yscale="log", xlabel="training step", ylabel="NC0 = ‖Wᵀ1‖")
        axes.legend()
    headline(coupled, "MLP on separable data, coupled decay", f"λ = {decay:g}, rate 0.001, medians of seeds")
    headline(decoupled, "The same, decoupled decay", "AdamW and signs: nothing brings NC0 down")
    _free(results, free)
    return made


def _free(results: Results, axes: Axes) -> None:
    for rule in FREE_RULES:
        own = free_runs(results, rule)
        axes.plot([run["nc0"] for run in own], [run["nc3"] for run in own], **mark(rule), label=rule)
    axes.set(xscale="log", yscale="log", xlabel="NC0 = ‖Wᵀ1‖", ylabel="NC3")
    headline(axes, "Unconstrained features", "runs of 100 % train accuracy, rates 0.1 and 1, λ = 5e-4")
    axes.legend()
