"""The pictures of `runs.sscn`: the gradient norm against steps, seconds and the sum of tau^2 + tau."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, note, save, sequence, style
from runs.engine.claims import Results
from runs.shared.figures import panel_grid
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
    shown = [[problem] for problem in PROBLEMS] + [["duke", "gisette"]]
    with style():
        made = []
        for name, problems in zip((*PROBLEMS, "sizes"), shown, strict=True):
            found = [p for p in problems if results.data(f"{p}-doubling-*")]
            made += [save(rows_figure(results, found), folder / f"{name}.png")] if found else []
        return made


def rows_figure(results: Results, problems: list[str]) -> Figure:
    """A row of three axes for each problem."""
    made, rows = panel_grid(len(problems), 3, (16.5, 4.7 * len(problems)), sharey="row")
    for panels, problem in zip(rows, problems, strict=True):
        for axes, (column, label) in zip(panels, AXES.items(), strict=True):
            _draw(results, axes, problem, column)
            axes.set(xscale="log", yscale="log", xlabel=label)
        panels[0].set_title(TITLES[problem], pad=22)
        panels[0].set_ylabel("norm of the whole gradient")
        note(panels[0], "solid: doubling; dashed: the published rule; dotted: not SSCN")
        note(panels[1], "of the steps alone, one core")
        note(panels[2], "coordinate descent: τ; gradient methods: n; Krylov: n a product")
        panels[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


def _draw(results: Results, axes: Axes, problem: str, column: str) -> None:
    sizes = SIZES[problem]
    for tau, colour in zip(sizes, sequence(len(sizes)), strict=True):
        _line(results, axes, f"{problem}-doubling-{tau}", column, colour, "-", f"τ = {tau}", 1.9)
        _line(results, axes, f"{problem}-ratio-{tau}", column, colour, _RATIO, None, 1.2)
    whole = "cubic Newton, Krylov" if problem == "duke" else "cubic Newton, τ = n"
    _line(results, axes, f"{problem}-cubic", column, ORANGE, "-", whole, 1.9)
    for name, colour in zip(SCHEDULES, ("#CC79A7", "#E69F00", "#56B4E9", "#8C510A"), strict=True):
        _line(results, axes, f"{problem}-{name}", column, colour, "-", name, 1.2)
    for job, width in zip(results.data(f"{problem}-cd-*"), (1.0, 1.8), strict=False):
        _line(results, axes, job, column, GREY, _OTHER, "coordinate descent " + job.rpartition("-")[2], width)
    for job, width in zip(results.data(f"{problem}-rsrnm-*"), (1.0, 1.8), strict=False):
        _line(results, axes, job, column, GREEN, _OTHER, "RS-RNM" + (", unit" if "unit" in job else ""), width)
    _line(results, axes, f"{problem}-gd", column, BLUE, _OTHER, "gradient descent", 1.4)
    _line(results, axes, f"{problem}-lbfgs", column, "#000000", _OTHER, "L-BFGS", 1.4)


def _line(
    results: Results, axes: Axes, job: str, column: str, colour: Any, dash: Any, label: str | None, width: float
) -> None:
    if not results.data(job):
        return
    with results.trace(job) as trace:
        looks = trace["gradient-0"]
        x, norm = looks[column][1:], looks["norm"][1:]
    axes.plot(x, norm, color=colour, ls=dash, lw=width, label=label)
