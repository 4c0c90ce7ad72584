"""The pictures of `runs.ngn`: scores and steps over step sizes on networks, and runs on the small problems."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.numbers import short
from probes.sweep.curves import standard_error
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline
from runs.engine.claims import Results
from runs.ngn.criteria import NAMES, scores, seeds
from runs.ngn.jobs import ADAPTIVE, MOMENTUM, NETWORKS
from runs.ngn.step_claims import LARGE
from runs.ngn.toys import DIABETES, READINGS, ROSENBROCK
from runs.shared.figures import panel_grid, save_pictures, with_colours

TITLES = {"fashion": "MLP on Fashion-MNIST", "mnist": "MLP on 4,000 of MNIST", "text": "Transformer on English"}
COLOURS = dict(zip(MOMENTUM, (ORANGE, BLUE, GREEN), strict=True)) | dict(
    zip(ADAPTIVE, (ORANGE, BLUE, GREEN), strict=True)
)
COLOURS |= {"ngn": "#56B4E9", "ngn-md2": "#CC79A7"}


def figures(results: Results, folder: Path) -> list[Path]:
    """Write `sensitivity.png`, `steps.png` and `toys.png`."""
    first = [f"{network}-{solver}-0" for network, load in NETWORKS.items() for solver in load.solvers]
    steps = [f"fashion-{solver}-0" for solver in ("momo", "ngn-m")]
    return save_pictures(
        results,
        folder,
        {
            "sensitivity.png": (sensitivity_figure, first),
            "steps.png": (steps_figure, steps),
            "toys.png": (toys_figure, ("rosenbrock-*", f"diabetes-{READINGS[0]}")),
        },
    )


def sensitivity_figure(results: Results) -> Figure:
    """A column for each network: solvers along the (mean) gradient above, those with a preconditioner below."""
    made, panels = panel_grid(2, len(NETWORKS), (19, 9), dpi=130)
    for column, (network, load) in enumerate(NETWORKS.items()):
        scaled = {s for s in load.solvers if s in (*ADAPTIVE, "ngn-md2")}
        for row, chosen in enumerate(([s for s in load.solvers if s not in scaled], [*scaled])):
            axes = panels[row][column]
            if not chosen:
                _steps(results, axes, (1.0, 10.0))
                continue
            for solver in sorted(chosen, key=list(NAMES).index):
                _scores(results, axes, network, solver)
            headline(axes, TITLES[network], f"at the end, {load.repeats}; dotted: the start")
            axes.set(xscale="log", xlabel="step size", ylabel="test loss" if network == "text" else "test accuracy")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)
    return made


def _scores(results: Results, axes: Axes, network: str, solver: str) -> None:
    found, sign = scores(results, network, solver), -1.0 if network == "text" else 1.0
    width = 2.2 if solver in (*MOMENTUM, *ADAPTIVE) else 1.2
    mean, error = sign * found.mean, standard_error(found.values)
    axes.errorbar(
        found.lrs, mean, error, color=COLOURS[solver], lw=width, capsize=3, marker="o", ms=4, label=NAMES[solver]
    )
    axes.axhline(sign * float(found.start.mean()), color=GREY, lw=0.9, ls=":")


def _steps(results: Results, axes: Axes, lrs: tuple[float, ...]) -> None:
    """The steps of MoMo and of NGN-M as shares of the largest one, epoch by epoch; dotted at the second step size."""
    for (solver, colour), (lr, dash) in itertools.product(
        (("momo", BLUE), ("ngn-m", GREEN)), zip(lrs, "-:", strict=False)
    ):
        for number, data in enumerate(seeds(results, "fashion", solver)):
            (tenths,) = [row["share"] and row["share"]["tenths"] for row in data["rows"] if row["lr"] == lr]
            if tenths:
                label = f"{NAMES[solver]}, {short(lr)}" if number == 0 else None
                axes.plot(range(1, 11), tenths, color=colour, ls=dash, marker="o", ms=4, lw=1.4, label=label)
    headline(axes, "Steps on Fashion-MNIST", "mean of each epoch, at these step sizes")
    axes.set(yscale="log", ylim=(1e-3, 2), xlabel="epoch", ylabel="step / step size")
    axes.legend(loc="lower left", ncols=2)


def steps_figure(results: Results) -> Figure:
    """The steps of MoMo and of NGN-M as shares of the largest one along the training, at three step sizes."""
    made, panels = figure(len(LARGE), height=4.4)
    for axes, lr in zip(panels, LARGE, strict=True):
        _steps(results, axes, (lr,))
    return made


def toys_figure(results: Results) -> Figure:
    """NGN-M and SGD with momentum on Rosenbrock's function; NGN-M and its rejected version on diabetes."""
    made, panels = figure(3, height=4.6)
    remarks = "from (-1.2, 1), β = 0.9, to f < 1e-15", "1 - β on every step; ends where f passes 1e10"
    solvers = {"ngn-m": "NGN-M", "sgd-m": "SGD with momentum"}
    for axes, (solver, title), remark in zip(panels, solvers.items(), remarks, strict=False):
        with results.trace(f"rosenbrock-{solver}") as trace:
            for lr, colour in with_colours(ROSENBROCK):
                rows = trace[f"lr-{lr:g}"]
                axes.plot(rows["step"] + 1, rows["loss"], color=colour, lw=1.2, label=f"c = {short(lr)}")
        headline(axes, f"{title} on Rosenbrock's function", remark)
        axes.set(ylabel="f", ylim=(1e-16, 1e11))
    with results.trace(f"diabetes-{READINGS[0]}") as trace:
        for lr, colour in with_colours(DIABETES):
            for version, dash in (("ngn-m", "-"), ("version-2", "--")):
                rows = trace[f"{version}-{lr:g}"]
                label = f"{'NGN-M' if dash == '-' else 'version 2'}, c = {short(lr)}"
                excess = np.maximum(rows["excess"], 1e-16)
                panels[2].plot(rows["step"] + 1, excess, color=colour, ls=dash, lw=1.2, label=label)
    headline(panels[2], "Regression on diabetes", "all entries scaled to [0, 1]")
    panels[2].set(ylabel="(f - f*) / (f(0) - f*)", ylim=(1e-16, 1e6))
    for axes in panels:
        axes.set(xscale="log", yscale="log", xlabel="step")
        axes.legend(fontsize=8)
    return made
