"""The pictures of `runs.sscn`: the gradient norm against steps, seconds and the sum of tau^2 + tau."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, headline, note, sequence
from runs.engine.claims import Results
from runs.shared.figures import panel_grid, save_pictures
from runs.sscn.jobs import PROBLEMS, SCHEDULES, SIZES

AXES = {"step": "steps", "seconds": "CPU seconds", "coordinates": "sum of τ² + τ"}
TITLES = {
    "cancer": "Breast cancer",
    "digits": "Digits, even or odd",
    "duke": "Shape of duke (n = 7129, N = 44)",
    "gisette": "Gisette's kind (n = 1000, N = 1200)",
    "lse": "log-sum-exp (n = 200)",
    "mlp": "Network on digits",
}
_RATIO, _OTHER = (0, (3, 1.5)), (0, (1, 1))


def figures(results: Results, folder: Path) -> list[Path]:
    """A PNG for each problem whose jobs are finished, and both rules on duke beside the sizes on gisette."""
    shown = {problem: [problem] for problem in PROBLEMS} | {"sizes": ["duke", "gisette"]}
    found = {name: [p for p in ps if results.data(f"{p}-doubling-*")] for name, ps in shown.items()}
    pictures = {f"{name}.png": (partial(rows_figure, problems=ps), ()) for name, ps in found.items() if ps}
    return save_pictures(results, folder, pictures)


def rows_figure(results: Results, problems: list[str]) -> Figure:
    """A row of three axes for each problem."""
    made, rows = panel_grid(len(problems), 3, (16.5, 4.7 * len(problems)), sharey="row")
    for panels, problem in zip(rows, problems, strict=True):
        for axes, (column, label) in zip(panels, AXES.items(), strict=True):
            _draw(results, axes, problem, column)
            axes.set(xscale="log", yscale="log", xlabel=label)
        headline(panels[0], TITLES[problem], "solid: doubling; dashed: the published rule; dotted: not SSCN")
        panels[0].set_ylabel("norm of the whole gradient")
        note(panels[1], "of the steps alone, one core")
        note(panels[2], "coordinate descent: τ; gradient methods: n; Krylov: n a product")
        panels[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


def _draw(results: Results, axes: Axes, problem: str, column: str) -> None:
    def line(job: str, colour: Any, dash: Any, label: str | None, width: float) -> None:
        if results.data(job):
            with results.trace(job) as trace:
                looks = trace["gradient-0"]
                axes.plot(looks[column][1:], looks["norm"][1:], color=colour, ls=dash, lw=width, label=label)

    sizes = SIZES[problem]
    for tau, colour in zip(sizes, sequence(len(sizes)), strict=True):
        line(f"{problem}-doubling-{tau}", colour, "-", f"τ = {tau}", 1.9)
        line(f"{problem}-ratio-{tau}", colour, _RATIO, None, 1.2)
    whole = "cubic Newton, Krylov" if problem == "duke" else "cubic Newton, τ = n"
    line(f"{problem}-cubic", ORANGE, "-", whole, 1.9)
    for name, colour in zip(SCHEDULES, ("#CC79A7", "#E69F00", "#56B4E9", "#8C510A"), strict=True):
        line(f"{problem}-{name}", colour, "-", name, 1.2)
    for job, width in zip(results.data(f"{problem}-cd-*"), (1.0, 1.8), strict=False):
        line(job, GREY, _OTHER, "coordinate descent " + job.rpartition("-")[2], width)
    for job, width in zip(results.data(f"{problem}-rsrnm-*"), (1.0, 1.8), strict=False):
        line(job, GREEN, _OTHER, "RS-RNM" + (", unit" if "unit" in job else ""), width)
    line(f"{problem}-gd", BLUE, _OTHER, "gradient descent", 1.4)
    line(f"{problem}-lbfgs", "#000000", _OTHER, "L-BFGS", 1.4)
