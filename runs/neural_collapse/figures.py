"""The pictures of `runs.neural_collapse`: an optimizer keeps its colour, decoupled decay is dashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.numbers import short
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, note, sequence
from runs.engine.claims import Results
from runs.neural_collapse.criteria import ACCURACY, Row, by_network, chosen, counting, regression, runs
from runs.neural_collapse.jobs import DECAY, MOMENTUM
from runs.neural_collapse.models import OPTIMIZERS, family
from runs.neural_collapse.theory import MOMENTA
from runs.neural_collapse.trend_claims import shares
from runs.shared.figures import save_pictures, with_colours

COLOURS = {"SGD": BLUE, "Adam": GREEN, "Signum": ORANGE}
TITLES = {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet"}
MARKERS = {"mlp": "o", "cnn": "s", "resnet": "^"}
_SIGNS = {"mlp": "○", "cnn": "□", "resnet": "△"}  # the markers in words
_DASHED = (0, (4, 2))


def figures(results: Results, folder: Path) -> list[Path]:
    """Write a PNG for each part whose jobs are finished."""
    pictures = {
        "training.png": (training_figure, ["grid-*"]),
        "theorems.png": (theorems_figure, ["theory-schedule", "theory-sign-*"]),
        "trends.png": (trends_figure, ["grid-*", "between-*"]),
    }
    return save_pictures(results, folder, pictures)


def training_figure(results: Results) -> Figure:
    """NC0 over training for the six optimizers, a panel for each network."""
    rows = [row | {"name": name} for name, row in results.data("grid-*").items() if "train" in row]
    rows = [row for row in chosen(rows, momentum=MOMENTUM, decay=DECAY) if "-s" not in row["name"]]
    found = by_network(rows)
    made, panels = figure(max(len(found), 1), height=4.6)
    for axes, (network, own) in zip(panels, found.items(), strict=False):
        for optimizer in OPTIMIZERS:
            for row in chosen(own, optimizer=optimizer):
                with results.trace(row["name"]) as trace:
                    steps, values = trace["train"]["step"], trace["train"]["nc0"]
                missed = "" if row["train"]["accuracy"] >= ACCURACY else f" ({row['train']['accuracy']:.1%})"
                axes.plot(steps, values, **line(optimizer), label=optimizer + missed)
        axes.set(yscale="log", xlabel="training step")
        headline(axes, TITLES[network], f"λ = {DECAY}, momentum {MOMENTUM}; solid: coupled decay, dashed: decoupled")
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    panels[0].set_ylabel("NC0 = ‖Wᵀ1‖")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


def theorems_figure(results: Results) -> Figure:
    """NC0 of a network over its prediction, and of the sign rules in the unconstrained-features model."""
    made, (network, free, fixed) = figure(3, height=4.6)
    with results.trace("theory-schedule") as trace:
        for number, (rule, mark) in enumerate((("SGD", "o"), ("SGDW", "s"))):
            for shift, (momentum, colour) in enumerate(with_colours(MOMENTA)):
                columns = trace[f"{rule}-{momentum:g}"].read()
                network.plot(columns["step"], columns["expected"], color=colour, lw=1.2)
                every = max(6, len(columns["step"]) // 12)
                marked = slice((3 * number + shift) * every // 6, None, every)  # side by side where lines coincide
                x, y = (columns[key][marked] for key in ("step", "value"))
                network.plot(x, y, mark, ms=4, color=colour, mfc="none", label=f"{rule}, β = {momentum:g}")
    headline(network, "An MLP on digits", "marks: measured, lines: predicted from the learning rates alone")
    network.set(yscale="log", xlabel="step", ylabel="NC0 = ‖Wᵀ1‖")
    network.legend(loc="lower left")
    with results.trace("theory-sign-decoupled") as trace:
        for run, colour in with_colours(results.one("theory-sign-decoupled")["runs"]):
            columns = trace[f"classes-{run['classes']}"].read()
            free.plot(columns["step"], columns["value"], color=colour, label=f"K = {run['classes']}")
            free.axhline(run["limit"], color=colour, ls=_DASHED, lw=1.0)
    free.set(yscale="log", ylim=(0.3, None), xlabel="step")
    headline(free, "Signs, decoupled decay", "unconstrained features; dashed: √K (K − 2) / λ")
    free.legend(loc="lower right")
    coupled(results, fixed)
    return made


def coupled(results: Results, axes: Axes) -> None:
    """Signs with coupled decay: fixed step sizes, and one that decays; the largest value of each stretch of steps."""
    etas = [run["eta"] for run in results.one("theory-sign-coupled")["runs"]]
    lines = {f"η = {eta:g}": (eta, "theory-sign-coupled", f"eta-{eta:g}") for eta in etas}
    colours = [*sequence(len(lines)), GREY]
    with results.trace("theory-sign-decaying") as trace:
        first = float(trace["nc0"]["rate"][0])
    lines["η → 0"] = (first, "theory-sign-decaying", "nc0")
    for (label, (eta, job, group)), colour in zip(lines.items(), colours, strict=True):
        with results.trace(job) as trace:
            values = np.asarray(trace[group]["value"])[1:]
        width = max(1, len(values) // 300)
        starts = np.arange(0, len(values), width)
        look: dict[str, Any] = {"ls": _DASHED, "zorder": 1} if colour == GREY else {}
        highest = np.maximum.reduceat(values, starts)
        axes.plot(eta * (starts + width), highest, color=colour, lw=1.4, label=label, **look)
    axes.set(xscale="log", xlim=(0.5, None), yscale="log", xlabel="first η × step")
    text = "rises, falls, and ends at the order of K³ᐟ² η unless η decays; upper envelopes"
    headline(axes, "Signs, coupled decay", text)
    axes.legend(loc="lower left")


def trends_figure(results: Results) -> Figure:
    """NC3 against NC0 over the counting runs, and the way from AdamW to Adam."""
    made, (scatter, between) = figure(2, height=4.8)
    rows = counting(runs(results))
    for optimizer in OPTIMIZERS:
        colour = COLOURS[family(optimizer)]
        look: dict[str, Any] = {"ms": 5, "color": colour, "mfc": "none" if optimizer.endswith("W") else colour}
        for network, own in by_network(chosen(rows, optimizer=optimizer)).items():
            scatter.plot(numbers(own, "nc0"), numbers(own, "nc3"), MARKERS[network], alpha=0.8, **look)
        scatter.plot([], [], "o", label=optimizer, **look)
    told = []
    for network, own in by_network(rows).items():
        slope, start, explained = regression(np.log(numbers(own, "nc0")), numbers(own, "nc3"))
        ends = np.array([min(numbers(own, "nc0")), max(numbers(own, "nc0"))])
        scatter.plot(ends, start + slope * np.log(ends), color=GREY, lw=1.0, ls=_DASHED)
        told.append(f"{_SIGNS[network]} {TITLES[network]} {short(slope, 2)} ({explained:.2f})")
    scatter.set(xscale="log", xlabel="NC0 = ‖Wᵀ1‖", ylabel="NC3")
    headline(scatter, "NC3 against NC0", "slope by ln NC0 (R²): " + ", ".join(told))
    scatter.legend(loc="upper left")
    found, table = shares(results)
    for key, colour in (("nc0", BLUE), ("nc2", GREEN), ("nc3", ORANGE)):
        between.plot(found, table[key], color=colour, marker="o", ms=4, label=key.upper())
    between.set(ylim=(0, None), xlabel=f"coupled share of the weight decay {DECAY}: AdamW (0) to Adam (1)")
    headline(between, "From AdamW to Adam, MLP")
    if found:
        low, high = min(table["test"]), max(table["test"])
        note(between, f"means over seeds; test accuracy {low:.1%} to {high:.1%} throughout")
    between.legend()
    return made


def line(optimizer: str) -> dict[str, Any]:
    """The look of an optimizer."""
    dashed = optimizer.endswith("W")
    return {"color": COLOURS[family(optimizer)], "ls": _DASHED if dashed else "-", "lw": 1.7}


def numbers(rows: list[Row], metric: str) -> list[float]:
    """A metric on training features."""
    return [float(row["train"][metric]) for row in rows]
