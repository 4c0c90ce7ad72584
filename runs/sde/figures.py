"""The pictures of `runs.sde`: bands of solver and SDE for each rule and problem, and what the SDEs foretell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from probes.views.pictures.style import BLUE, GREEN, ORANGE
from runs.engine.claims import Results
from runs.sde.jobs import QUADRATICS, RULES_ON
from runs.sde.panels import FINDINGS, PROBLEMS, SEVEN, TITLES, ratios, title
from runs.shared.figures import save_pictures

STATISTICS = {"loss": "loss", "gradient_norm": "gradient norm", "square": "second moment of x"}
SHOWN = 0.1  # step size in the pictures


def figures(results: Results, folder: Path) -> list[Path]:
    """A PNG of bands for each problem whose jobs are finished, and a sheet of bands and findings."""
    pictures: dict[str, tuple[Callable[[Results], Figure], list[str]]] = {
        f"{problem}.png": (partial(bands, problem=problem), [f"track-{problem}-*"]) for problem in RULES_ON
    }
    needed = [*(job for _, job in FINDINGS), *(f"track-rotated-{rule}" for rule in SEVEN)]
    return save_pictures(results, folder, pictures | {"sheet.png": (sheet, needed)})


def bands(results: Results, problem: str) -> Figure:
    """A column for each rule; loss, gradient norm and second moment below one another."""
    rules = [rule for rule in RULES_ON[problem] if results.data(f"track-{problem}-{rule}")]
    made, axes = _grid(3, len(rules), height=3.2)
    for column, rule in enumerate(rules):
        for row, statistic in enumerate(STATISTICS):
            band(results, axes[row][column], problem, rule, statistic)
        axes[0][column].set_title(TITLES[rule])
        axes[-1][column].set_xlabel("time, steps × η")
    for row, label in enumerate(STATISTICS.values()):
        axes[row][0].set_ylabel(label)
    made.suptitle(f"{PROBLEMS[problem]}: mean and deviation over paths", x=0.01, ha="left", weight="bold")
    _legend(made)
    return made


def sheet(results: Results) -> Figure:
    """The loss of seven rules on the quadratic that does not commute, and the findings."""
    made, axes = _grid(4, 4, height=3.9)
    panels = list(axes.flat)
    for panel, rule in zip(panels, SEVEN, strict=False):
        band(results, panel, "rotated", rule, "loss")
        title(panel, f"{TITLES[rule]}: loss", f"quadratic, {PROBLEMS['rotated']}")
        panel.set_xlabel("time, steps × η")
    ratios(results, panels[len(SEVEN)])
    for panel, (draw, _) in zip(panels[len(SEVEN) + 1 :], FINDINGS, strict=False):
        draw(results, panel)
    for panel in panels[len(SEVEN) + 1 + len(FINDINGS) :]:
        panel.set_visible(False)
    _legend(made)
    return made


def band(results: Results, axes: Axes, problem: str, rule: str, statistic: str) -> None:
    """Mean and deviation over paths of solver and SDE, and of the SDE without noise in the second moment."""
    etas = [row["eta"] for row in results.one(f"track-{problem}-{rule}")["rows"]]
    eta = min(etas, key=lambda value: abs(value - SHOWN))
    with results.trace(f"track-{problem}-{rule}") as trace:
        for kind, colour, dash in (("solver", BLUE, "-"), ("sde", ORANGE, (0, (4, 2))), ("quiet", GREEN, ":")):
            if f"{kind}-{eta:g}" not in trace:
                continue
            rows = trace[f"{kind}-{eta:g}"]
            t, mean, std = rows["t"], rows[f"{statistic}_mean"], rows[f"{statistic}_std"]
            axes.plot(t, mean, color=colour, ls=dash, lw=2.0 if kind == "solver" else 1.6)
            if kind == "solver":
                axes.fill_between(t, mean - std, mean + std, color=colour, alpha=0.18, lw=0)
                least, low, high = mean.min(), (mean - std).min(), (mean + std).max()
            for edge in (-1, 1):
                axes.plot(t, mean + edge * std, color=colour, ls=dash, lw=1.0)
    if statistic == "loss" and problem in QUADRATICS:
        axes.set_yscale("log")  # a lower edge may be at 0 or below
        axes.set_ylim(least / 6, 1.3 * high)
    else:
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _grid(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    """Panels at fixed places: to search for them takes longer than to draw so many."""
    width, tall = 4.3 * columns, height * rows + 1.2
    made = Figure(figsize=(width, tall), dpi=110)
    FigureCanvasAgg(made)
    places = {"left": 0.65 / width, "right": 1 - 0.15 / width, "bottom": 0.95 / tall, "top": 1 - 0.8 / tall}
    gaps = {"wspace": 0.22, "hspace": 0.22 if height < 3.5 else 0.42}
    return made, made.subplots(rows, columns, squeeze=False, gridspec_kw=places | gaps)


def _legend(made: Figure) -> None:
    handles = [
        Patch(color=BLUE, label=f"solver (shaded: ± deviation), η = {SHOWN:g}"),
        Patch(color=ORANGE, label="SDE, mean and ± deviation"),
        Patch(color=GREEN, label="SDE without noise in the second moment"),
    ]
    made.legend(handles=handles, loc="lower center", ncols=3)
