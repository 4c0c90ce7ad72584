"""The pictures of `runs.ngn`: losses over step sizes on four networks, and runs on the small problems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.numbers import short
from probes.sweep.figures import draw_curves
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, sequence
from runs.engine.claims import Results
from runs.ngn.jobs import ADAPTIVE, DECAY, MOMENTUM, NETWORKS
from runs.ngn.network_claims import NAMES, curve
from runs.ngn.toys import DIABETES, ROSENBROCK
from runs.shared.figures import panel_grid, save_pictures

TITLES = {"mlp": "MLP on digits", "cnn": "CNN on digits", "vit": "ViT on digits", "text": "Transformer on text"}
COLOURS = {
    "sgd-m": ORANGE,
    "momo": BLUE,
    "ngn-m": GREEN,
    "sps": "#E69F00",
    "ngn": "#56B4E9",
    "ngn-d": GREY,
    "adam": ORANGE,
    "momo-adam": BLUE,
    "ngn-md1": GREEN,
    "ngn-md2": "#CC79A7",
    "ngn-md1-dec": "#56B4E9",
    "ngn-md1-w": "#E69F00",
}
READING = "diabetes-rows-mean"  # in which version 2 diverges at the published step size


def figures(results: Results, folder: Path) -> list[Path]:
    """Write `sensitivity.png` and `toys.png`."""
    return save_pictures(results, folder, {"sensitivity.png": (sensitivity_figure, ()), "toys.png": (toys_figure, ())})


def sensitivity_figure(results: Results) -> Figure:
    """A column for each network: solvers along the (mean) gradient above, those with a preconditioner below."""
    made, panels = panel_grid(2, len(NETWORKS), (19, 8.6), dpi=130)
    scaled = {*ADAPTIVE, "ngn-md2", *DECAY}
    for column, (network, (_, _, _, solvers)) in enumerate(NETWORKS.items()):
        for row, chosen in enumerate(([s for s in solvers if s not in scaled], [s for s in solvers if s in scaled])):
            axes = panels[row][column]
            _panel(results, axes, network, [s for s in chosen if results.data(f"{network}-{s}")])
            headline(axes, TITLES[network])
    return made


def _panel(results: Results, axes: Axes, network: str, names: list[str]) -> None:
    if not names:
        return
    found = [curve(results, network, s) for s in names]
    draw_curves(axes, found, [COLOURS[s] for s in names], [NAMES[s] for s in names])
    for line, name in zip(axes.get_lines()[::2], names, strict=False):  # every other one is the crosses
        line.set_linewidth(2.2 if name in (*MOMENTUM, *ADAPTIVE) else 1.1)
    axes.texts[0].set_text("mean ± standard error; dotted: the start; ×: a run diverged")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def toys_figure(results: Results) -> Figure:
    """NGN-M and SGD with momentum on Rosenbrock's function; NGN-M and its rejected version on diabetes."""
    made, panels = figure(3, height=4.6)
    remarks = "from (-1.2, 1), β = 0.9, to f < 1e-15", "1 - β on every step; ends where f passes 1e10"
    for axes, solver, title, remark in zip(
        panels, ("ngn-m", "sgd-m"), ("NGN-M", "SGD with momentum"), remarks, strict=False
    ):
        if results.data(f"rosenbrock-{solver}"):
            with results.trace(f"rosenbrock-{solver}") as trace:
                for lr, colour in zip(ROSENBROCK, sequence(len(ROSENBROCK)), strict=True):
                    rows = trace[f"lr-{lr:g}"]
                    axes.plot(rows["step"] + 1, rows["loss"], color=colour, lw=1.2, label=f"c = {short(lr)}")
        headline(axes, f"{title} on Rosenbrock's function", remark)
        axes.set(ylabel="f", ylim=(1e-16, 1e11))
    if results.data(READING):
        with results.trace(READING) as trace:
            for lr, colour in zip(DIABETES, sequence(len(DIABETES)), strict=True):
                for version, dash in (("ngn-m", "-"), ("version-2", "--")):
                    rows = trace[f"{version}-{lr:g}"]
                    label = f"{'NGN-M' if dash == '-' else 'version 2'}, c = {short(lr)}"
                    axes, excess = panels[2], np.maximum(rows["excess"], 1e-16)
                    axes.plot(rows["step"] + 1, excess, color=colour, ls=dash, lw=1.2, label=label)
        panels[2].set_ylim(1e-16, 1e6)
    headline(panels[2], "Regression on diabetes", "rows of length 1, mean of squares")
    panels[2].set_ylabel("(f - f*) / (f(0) - f*)")
    for axes in panels:
        axes.set(xscale="log", yscale="log", xlabel="step")
        axes.legend(fontsize=8)
    return made
