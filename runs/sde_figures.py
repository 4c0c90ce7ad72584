"""The pictures of `runs.sde`: bands of solver and SDE for each rule and problem, and what the SDEs foretell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from probes.figures import BLUE, GREEN, GREY, ORANGE, note, save, sequence, style
from probes.formats import short
from runs.experiment import Results
from runs.sde_criteria import smallest
from runs.sde_jobs import RULES_ON
from runs.sde_problems import DECAY
from runs.sde_saddles import RADII
from runs.sde_stationary import CURVATURES, ETA

TITLES = {
    "sgd": "SGD", "sign": "SignSGD", "rmsprop": "RMSprop", "rmspropw": "RMSpropW", "adam": "Adam", "adamw": "AdamW",
    "sam": "SAM", "usam": "USAM", "dnsam": "DNSAM", "sgd-decay": "SGD with decay", "adam-coupled": "Adam, coupled",
}  # fmt: skip
PROBLEMS = {
    "commuting": "H and Σ commute", "rotated": "H and Σ do not commute", "cauchy": "Cauchy noise",
    "cancer": "logistic regression, batches of 2 of 12", "network": "network on iris",
}  # fmt: skip
STATISTICS = {"loss": "loss", "gradient_norm": "gradient norm", "square": "second moment of x"}
SHOWN = 0.05  # step size in the pictures
SEVEN = ("sgd", "sign", "rmsprop", "adam", "sam", "usam", "dnsam")
_OTHER = "#CC79A7"


def figures(results: Results, folder: Path) -> list[Path]:
    """A PNG of bands for each problem whose jobs are finished, one of the findings, and both on one sheet."""
    made = []
    with style():
        for problem in RULES_ON:
            rules = [rule for rule in RULES_ON[problem] if results.data(f"track-{problem}-{rule}")]
            if rules:
                made.append(save(bands(results, problem, rules), folder / f"{problem}.png"))
        parts = [draw for draw, job in FINDINGS if results.data(job)]
        if len(parts) == len(FINDINGS):
            made.append(save(findings(results), folder / "findings.png"))
        if len(parts) == len(FINDINGS) and all(results.data(f"track-rotated-{rule}") for rule in SEVEN):
            made.append(save(sheet(results), folder / "sheet.png"))
    return made


def bands(results: Results, problem: str, rules: Sequence[str]) -> Figure:
    """A column for each rule; loss, gradient norm and second moment below one another."""
    made, axes = _grid(3, len(rules))
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
    panels = [panel for row in axes for panel in row]
    for panel, rule in zip(panels, SEVEN, strict=False):
        band(results, panel, "rotated", rule, "loss")
        panel.set_title(f"{TITLES[rule]}: loss", pad=20)
        panel.set_xlabel("time, steps × η")
        note(panel, f"quadratic, {PROBLEMS['rotated']}")
    ratios(results, panels[len(SEVEN)])
    for panel, (draw, _) in zip(panels[len(SEVEN) + 1 :], FINDINGS, strict=False):
        draw(results, panel)
    for panel in panels[len(SEVEN) + 1 + len(FINDINGS) :]:
        panel.set_visible(False)
    _legend(made)
    return made


def findings(results: Results) -> Figure:
    """A panel for each."""
    made, axes = _grid(2, 4, height=4.2)
    panels = [panel for row in axes for panel in row]
    for panel, (draw, _) in zip(panels, FINDINGS, strict=False):
        draw(results, panel)
    for panel in panels[len(FINDINGS) :]:
        panel.set_visible(False)
    return made


def band(results: Results, axes: Axes, problem: str, rule: str, statistic: str) -> None:
    """Mean and deviation over paths of solver and SDE, and of the SDE without noise in the second moment."""
    etas = [row["eta"] for row in results.data(f"track-{problem}-{rule}")[f"track-{problem}-{rule}"]["rows"]]
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
                low, high = (mean - std).min(), (mean + std).max()
            for edge in (-1, 1):
                axes.plot(t, mean + edge * std, color=colour, ls=dash, lw=1.0)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def ratios(results: Results, axes: Axes) -> None:
    """The ratio of covariances over the step size, with and without noise in the second moment."""
    for rule, colour in (("rmsprop", BLUE), ("adam", ORANGE)):
        rows = results.data(f"track-rotated-{rule}")[f"track-rotated-{rule}"]["rows"]
        for kind, dash, label in (("sde", "-", TITLES[rule]), ("quiet", ":", f"{TITLES[rule]}, without")):
            found = [row["sdes"][kind] for row in rows]
            axes.errorbar(
                [row["eta"] for row in rows], [f["ratio"] for f in found], [2 * f["ratio_stderr"] for f in found],
                color=colour, ls=dash, marker="o", ms=4, capsize=3, label=label,
            )  # fmt: skip
    axes.axhline(1, color=GREY, lw=0.9)
    _ticks(axes, [row["eta"] for row in rows])
    axes.set_xlabel("η")
    axes.set_title("Covariance, solver over SDE", pad=20)
    note(axes, "trace at the end; with and without noise in the second moment")
    axes.legend()


def noise_panel(results: Results, axes: Axes) -> None:
    """Stationary loss by the noise's deviation, and the SDEs'."""
    shown = {"sgd": BLUE, "sign": ORANGE, "adam": GREEN, "adamw": _OTHER, "rmspropw": "#000000"}
    for name, colour in shown.items():
        rows = results.data(f"noise-{name}")[f"noise-{name}"]
        sigma = [row["sigma"] for row in rows]
        axes.plot(sigma, [row["loss"] for row in rows], "o", color=colour, ms=4.5, label=TITLES[name])
        axes.plot(sigma, [row["sde"] for row in rows], color=colour, lw=1.2)
    axes.axhline(ETA * sum(CURVATURES) / (4 * DECAY), color=GREY, lw=0.9, ls=":")
    _ticks(axes, sigma)
    axes.set_yscale("log")
    axes.set_xlabel("deviation of the noise")
    axes.set_title("Stationary loss", pad=20)
    note(axes, "dots: solver; lines: SDE in closed form; dotted: RMSpropW's limit")
    axes.legend()


def phase_panel(results: Results, axes: Axes) -> None:
    """SignSGD's drift by |Y| with both laws."""
    bins = results.data("phases")["phases"]["bins"]
    middle = np.array([(b["low"] + b["high"]) / 2 for b in bins])
    axes.plot(middle, [b["drift"] for b in bins], "o", color=BLUE, ms=4, label="solver")
    y = np.linspace(0, 3, 200)
    axes.plot(y, [math.erf(v) for v in y], color=ORANGE, lw=1.4, label="Erf(Y), the SDE")
    axes.plot(y[y <= 1], 2 * y[y <= 1] / math.sqrt(math.pi), color=GREEN, ls="--", lw=1.4, label="line of phase 3")
    axes.plot([1.5, 3], [1, 1], color=GREY, ls="--", lw=1.4, label="sign of phase 1")
    axes.set_xlabel("|Y| = |∇f| / (√2 σ)")
    axes.set_title("SignSGD: drift", pad=20)
    note(axes, "mean step towards the minimum over η")
    axes.legend(loc="lower right")


def decay_panel(results: Results, axes: Axes) -> None:
    """SignSGD's loss from far, solver and SDE."""
    with results.trace("phases") as trace:
        for kind, colour, dash in (("solver", BLUE, "-"), ("sde", ORANGE, (0, (4, 2)))):
            rows = trace[kind]
            label = "SDE" if kind == "sde" else kind
            axes.plot(rows["t"], rows["loss"] ** 0.5, color=colour, ls=dash, label=label)
            past = rows["x"] / math.sqrt(2)
    t = rows["t"]
    for level in (1.5, 1.0):
        axes.axvline(t[int((past <= level).argmax())], color=GREY, lw=0.9, ls=":")
    axes.set_yscale("log")
    axes.set_xlabel("time, steps × η")
    axes.set_title("SignSGD: root of the mean loss", pad=20)
    note(axes, "dotted: |Y| = 3/2 and 1")
    axes.legend()


def heavy_panel(results: Results, axes: Axes) -> None:
    """Median distance by step size under Student's noise."""
    for rule, colour in (("sgd", BLUE), ("sign", ORANGE)):
        for dof, dash in (("1", "-"), ("1.5", "--")):
            rows = results.data(f"heavy-{rule}-{dof}")[f"heavy-{rule}-{dof}"]
            eta, label = [row["eta"] for row in rows], f"{TITLES[rule]}, {dof}"
            axes.plot(eta, [row["median"] for row in rows], color=colour, ls=dash, marker="o", ms=4, label=label)
            axes.plot(eta, [row["largest"] for row in rows], color=colour, ls=dash, lw=0.7, marker="^", ms=4)
    _ticks(axes, eta)
    axes.set_yscale("log")
    axes.set_xlabel("η")
    axes.set_title("Student noise: |x|", pad=20)
    note(axes, "dots: median; triangles: largest of all paths; degrees of freedom")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.55))


def saddle_panel(results: Results, axes: Axes) -> None:
    """Share that left the saddle by the noise."""
    for rule, colour in (("sgd", BLUE), ("sam", ORANGE), ("dnsam", GREEN)):
        rows = results.data(f"escape-{rule}")[f"escape-{rule}"]["rows"]
        noise = [row["noise"] for row in rows]
        axes.plot(noise, [row["solver"] for row in rows], "o-", color=colour, ms=4.5, lw=1.0, label=TITLES[rule])
        if rule != "dnsam":
            axes.plot(noise, [row["sde"] for row in rows], "x", color=colour, ms=7)
    axes.axvline(math.sqrt(math.pi / 8), color=GREY, lw=0.9, ls=":")
    _ticks(axes, noise)
    axes.set_xlabel("deviation of the noise over ρ")
    axes.set_title("Share that left the saddle", pad=20)
    note(axes, "crosses: SDE; dotted: the threshold √(π/8) of SAM's SDE")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.68))


def radius_panel(results: Results, axes: Axes) -> None:
    """Share of full-batch starts that end at the saddle, by radius."""
    found = {(row["case"], row["kind"]): row for row in results.data("saddle")["saddle"]}
    for case, colour, label in (("gd", BLUE, "gradient descent"), ("sam", ORANGE, "SAM")):
        axes.plot(RADII, found[case, "solver"]["by_radius"], "o-", color=colour, ms=4.5, lw=1.0, label=label)
        axes.plot(RADII, found[case, "ode"]["by_radius"], "x", color=colour, ms=7)
    axes.axvline(1, color=GREY, lw=0.9, ls=":")
    _ticks(axes, [0.1, 0.3, 1.0, 3.0])
    axes.set_xlabel("distance of the start over ρ")
    axes.set_title("Full batch: share that ends at the saddle", pad=20)
    note(axes, "48 directions; crosses: ODE")
    axes.legend(loc="center left")


def order_panel(results: Results, axes: Axes) -> None:
    """Distance of the means over the way made, by step size."""
    for rule, colour in zip(SEVEN, sequence(len(SEVEN)), strict=True):
        rows = results.data(f"track-rotated-{rule}")[f"track-rotated-{rule}"]["rows"]
        eta, found = [row["eta"] for row in rows], [row["sdes"]["sde"] for row in rows]
        distance = [max(f["error"], 1e-4) / f["scale"] for f in found]
        stderr = [f["error_stderr"] / f["scale"] for f in found]
        axes.errorbar(eta, distance, stderr, color=colour, marker="o", ms=4, capsize=3, lw=1.2, label=TITLES[rule])
    axes.plot(eta, [0.2 * e for e in eta], color=GREY, ls=":", lw=1.2)
    _ticks(axes, eta)
    axes.set_yscale("log")
    axes.set_ylim(bottom=3e-4)
    axes.set_xlabel("η")
    axes.set_title("Distance of means over the way made", pad=20)
    note(axes, f"quadratic, {PROBLEMS['rotated']}; dotted: slope 1")
    axes.legend(fontsize=8, ncols=2, loc="lower right")


def controls_panel(results: Results, axes: Axes) -> None:
    """Ratios of covariances of all rules and problems at the smallest step size, and with twice the covariance."""
    data = list(results.data("track-*").values())
    for kind, colour, label in (("sde", BLUE, "SDE"), ("double", ORANGE, "twice the covariance")):
        found = [smallest(d, kind) for d in data]
        axes.errorbar(
            range(len(data)), [f["ratio"] for f in found], [2 * f["ratio_stderr"] for f in found], color=colour,
            ls="", marker="o", ms=3.5, capsize=2, lw=1.0, label=label,
        )  # fmt: skip
    starts = [i for i, d in enumerate(data) if i == 0 or data[i - 1]["problem"] != d["problem"]]
    for start in starts[1:]:
        axes.axvline(start - 0.5, color=GREY, lw=0.6)
    axes.set_xticks(starts, [data[i]["problem"] for i in starts], ha="left", fontsize=8.5)
    axes.axhline(1, color=GREY, lw=0.9)
    axes.set_ylim(bottom=0)
    axes.set_title("Covariance, solver over SDE, smallest η", pad=20)
    note(axes, "trace; every rule on every problem; without diffusion the ratio is infinite")
    axes.legend(loc="upper left", ncols=2)


FINDINGS: tuple[tuple[Any, str], ...] = (
    (noise_panel, "noise-sgd"), (phase_panel, "phases"), (decay_panel, "phases"), (heavy_panel, "heavy-sgd-1"),
    (radius_panel, "saddle"), (saddle_panel, "escape-dnsam"), (order_panel, "track-rotated-dnsam"),
    (controls_panel, "track-network-dnsam"),
)  # fmt: skip


def _grid(rows: int, columns: int, height: float = 3.2) -> tuple[Figure, Any]:
    made = Figure(figsize=(4.3 * columns, height * rows + 0.4), layout="constrained", dpi=110)
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, squeeze=False)


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with these marks and no others."""
    axes.set_xscale("log")
    axes.set_xticks(values, [short(v, 3) for v in values])
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(made: Figure) -> None:
    handles = [
        Patch(color=BLUE, label=f"solver (shaded: ± deviation), η = {SHOWN:g}"),
        Patch(color=ORANGE, label="SDE, mean and ± deviation"),
        Patch(color=GREEN, label="SDE without noise in the second moment"),
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=3)
