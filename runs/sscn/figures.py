"""The pictures of `runs.sscn`: the gradient norm against steps, seconds and the sum of tau^2 + tau."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREY, ORANGE, headline, note, sequence
from runs.engine.claims import Results
from runs.shared.figures import panel_grid, save_pictures
from runs.sscn.plan import PROBLEMS, SETUPS

AXES = {"step": "steps", "seconds": "processor seconds", "coordinates": "sum of τ² + τ"}
TITLES = {
    "nci60": "NCI60 (64 × 6830)",
    "leukemia": "Leukemia (38 × 3051)",
    "pairs": "MNIST, 4 or 9, pairs of pixels (1000 × 2500)",
    "mnist": "MNIST, 4 or 9 (1000 × 569)",
    "weak": "MNIST, 4 or 9, λ = 0.001",
    "lse": "log-sum-exp, μ = 0.05 (n = 500)",
    "lse-hard": "log-sum-exp, μ = 0.01 (n = 500)",
    "madelon": "madelon's generator (2000 × 500)",
    "squares": "non-linear least squares (2000 × 500)",
    "cauchy": "Cauchy's loss on diabetes (442 × 65)",
    "geman-mcclure": "Geman and McClure's loss on diabetes",
    "digits": "Digits, even or odd (1797 × 61)",
    "cancer": "Breast cancer (569 × 30)",
    "mlp": "Network on digits (n = 610)",
}
SHOWN = ("pairs", "nci60")
BROWN = "#8C510A"
_RATIO, _OTHER, _RANDOM = (0, (3, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))


def figures(results: Results, folder: Path) -> list[Path]:
    """A PNG for each problem whose jobs are finished, and two of them in one."""
    shown = {problem: (problem,) for problem in PROBLEMS} | {"sscn": SHOWN}
    found = {name: [p for p in ps if results.data(f"{p}-doubling-*")] for name, ps in shown.items()}
    pictures = {f"{name}.png": (partial(rows_figure, problems=ps), ()) for name, ps in found.items() if ps}
    return save_pictures(results, folder, pictures)


def rows_figure(results: Results, problems: list[str]) -> Figure:
    """A row of three axes for each problem, of the first start."""
    made, rows = panel_grid(len(problems), 3, (16.5, 4.7 * len(problems)), sharey="row")
    for panels, problem in zip(rows, problems, strict=True):
        for axes, (column, label) in zip(panels, AXES.items(), strict=True):
            _draw(results, axes, problem, column)
            axes.set(xscale="log", yscale="log", xlabel=label)
        headline(panels[0], TITLES[problem], "SSCN solid: M doubles; dashed: the published rule for M")
        panels[0].set_ylabel("norm of the whole gradient")
        note(panels[1], "of the steps alone, one core")
        note(panels[2], "coordinate descent: τ; gradient methods: n")
        panels[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made


def _draw(results: Results, axes: Axes, problem: str, column: str) -> None:
    def line(job: str, colour: Any, dash: Any, label: str | None, width: float) -> None:
        if results.data(job):
            with results.trace(job) as trace:
                looks = trace["gradient-0"]
                x, y = looks[column][1:], looks["norm"][1:]
                alone = "o" if len(x) == 1 else None  # one step was all that the time allowed
                axes.plot(x, y, color=colour, ls=dash, lw=width, label=label, marker=alone)

    sizes = SETUPS[problem].sizes
    for tau, colour in zip(sizes, sequence(len(sizes)), strict=True):
        line(f"{problem}-doubling-{tau}", colour, "-", f"τ = {tau}", 1.9)
        line(f"{problem}-ratio-{tau}", colour, _RATIO, None, 1.2)
    line(f"{problem}-cubic", ORANGE, "-", "τ = n (cubic Newton)", 1.9)
    line(f"{problem}-krylov", ORANGE, _RANDOM, "cubic Newton, Krylov", 1.4)
    for name, colour in (("exponential", "#CC79A7"), ("linear", "#E69F00")):
        line(f"{problem}-{name}", colour, "-", f"τ {name}", 1.2)
    for tail, width in ((sizes[0], 1.0), ("n", 1.8)):
        line(f"{problem}-cd-{tail}", GREY, _OTHER, f"coordinate descent, τ = {tail}", width)
    line(f"{problem}-rsrnm-{sizes[len(sizes) // 2]}", BROWN, _OTHER, "RS-RNM", 1.0)
    line(f"{problem}-rsrnm-unit-{sizes[len(sizes) // 2]}", BROWN, _OTHER, "RS-RNM, unit", 1.8)
    line(f"{problem}-gd", BLUE, _OTHER, "gradient descent", 1.4)
    line(f"{problem}-lbfgs", "#000000", _OTHER, "L-BFGS", 1.4)
