"""The panels of `runs.sde`'s pictures, one for each finding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from probes.numbers import short
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, note, sequence
from runs.engine.claims import Results
from runs.sde.criteria import smallest
from runs.sde.problems import DECAY
from runs.sde.saddles import RADII
from runs.sde.stationary import CURVATURES, ETA

TITLES = {
    "sgd": "SGD",
    "sign": "SignSGD",
    "rmsprop": "RMSprop",
    "rmspropw": "RMSpropW",
    "adam": "Adam",
    "adamw": "AdamW",
    "sam": "SAM",
    "usam": "USAM",
    "dnsam": "DNSAM",
    "sgd-decay": "SGD with decay",
    "adam-coupled": "Adam, coupled",
}
PROBLEMS = {
    "commuting": "H and Σ commute",
    "rotated": "H and Σ do not commute",
    "cauchy": "Cauchy noise",
    "cancer": "logistic regression, batches of 2 of 12",
    "network": "network on iris",
}
SEVEN = ("sgd", "sign", "rmsprop", "adam", "sam", "usam", "dnsam")
_OTHER = "#CC79A7"


def ratios(results: Results, axes: Axes) -> None:
    """The ratio of covariances over the step size, with and without noise in the second moment."""
    for rule, colour in (("rmsprop", BLUE), ("adam", ORANGE)):
        rows = results.one(f"track-rotated-{rule}")["rows"]
        for kind, dash, label in (("sde", "-", TITLES[rule]), ("quiet", ":", f"{TITLES[rule]}, without")):
            found = [row["sdes"][kind] for row in rows]
            _ratio_marks(axes, [row["eta"] for row in rows], found, color=colour, ls=dash, ms=4, capsize=3, label=label)
    axes.axhline(1, color=GREY, lw=0.9)
    _ticks(axes, [row["eta"] for row in rows])
    axes.set(xlabel="η", ylim=(0.3, 1.2))
    title(axes, "Covariance, solver over SDE", "trace at the end; with and without noise in V")
    axes.legend(loc="lower center", ncols=2)


def noise_panel(results: Results, axes: Axes) -> None:
    """Stationary loss by the noise's deviation, and the SDEs'."""
    shown = {"sgd": BLUE, "sign": ORANGE, "adam": GREEN, "adamw": _OTHER, "rmspropw": "#000000"}
    for name, colour in shown.items():
        rows = results.one(f"noise-{name}")
        sigma = [row["sigma"] for row in rows]
        axes.plot(sigma, [row["loss"] for row in rows], "o", color=colour, ms=4.5, label=TITLES[name])
        axes.plot(sigma, [row["sde"] for row in rows], color=colour, lw=1.2)
    axes.axhline(ETA * sum(CURVATURES) / (4 * DECAY), color=GREY, lw=0.9, ls=":")
    _ticks(axes, sigma)
    axes.set(yscale="log", xlabel="deviation of the noise")
    title(axes, "Stationary loss", "dots: solver; lines: SDE in closed form; dotted: RMSpropW's limit")
    axes.legend()


def phase_panel(results: Results, axes: Axes) -> None:
    """SignSGD's drift by |Y| with both laws."""
    bins = results.one("phases")["bins"]
    middle = np.array([(b["low"] + b["high"]) / 2 for b in bins])
    axes.plot(middle, [b["drift"] for b in bins], "o", color=BLUE, ms=4, label="solver")
    y = np.linspace(0, 3, 200)
    axes.plot(y, [math.erf(v) for v in y], color=ORANGE, lw=1.4, label="Erf(Y), the SDE")
    axes.plot(y[y <= 1], 2 * y[y <= 1] / math.sqrt(math.pi), color=GREEN, ls="--", lw=1.4, label="line of phase 3")
    axes.plot([1.5, 3], [1, 1], color=GREY, ls="--", lw=1.4, label="sign of phase 1")
    axes.set_xlabel("|Y| = |∇f| / (√2 σ)")
    title(axes, "SignSGD: drift", "mean step towards the minimum over η")
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
    axes.set(yscale="log", xlabel="time, steps × η")
    title(axes, "SignSGD: root of the mean loss", "dotted: |Y| = 3/2 and 1")
    axes.legend()


def heavy_panel(results: Results, axes: Axes) -> None:
    """Median distance by step size under Student's noise."""
    for rule, colour in (("sgd", BLUE), ("sign", ORANGE)):
        for dof, dash in (("1", "-"), ("1.5", "--")):
            rows = results.one(f"heavy-{rule}-{dof}")
            eta, label = [row["eta"] for row in rows], f"{TITLES[rule]}, {dof}"
            axes.plot(eta, [row["median"] for row in rows], color=colour, ls=dash, marker="o", ms=4, label=label)
            axes.plot(eta, [row["largest"] for row in rows], color=colour, ls=dash, lw=0.7, marker="^", ms=4)
    _ticks(axes, eta)
    axes.set(yscale="log", xlabel="η")
    title(axes, "Student noise: |x|", "dots: median; triangles: largest; by degrees of freedom")
    axes.legend(loc="center", bbox_to_anchor=(0.5, 0.42), ncols=2)


def saddle_panel(results: Results, axes: Axes) -> None:
    """Share that left the saddle by the noise."""
    for rule, colour in (("sgd", BLUE), ("sam", ORANGE), ("dnsam", GREEN)):
        rows = results.one(f"escape-{rule}")["rows"]
        noise = [row["noise"] for row in rows]
        axes.plot(noise, [row["solver"] for row in rows], "o-", color=colour, ms=4.5, lw=1.0, label=TITLES[rule])
        if rule != "dnsam":
            axes.plot(noise, [row["sde"] for row in rows], "x", color=colour, ms=7)
    axes.axvline(math.sqrt(math.pi / 8), color=GREY, lw=0.9, ls=":")
    _ticks(axes, noise)
    axes.set_xlabel("deviation of the noise over ρ")
    title(axes, "Share that left the saddle", "crosses: SDE; dotted: the threshold √(π/8) of SAM's SDE")
    axes.legend(loc="center left", bbox_to_anchor=(0.0, 0.72))


def radius_panel(results: Results, axes: Axes) -> None:
    """Share of full-batch starts that end at the saddle, by radius."""
    found = {(row["case"], row["kind"]): row for row in results.one("saddle")}
    for case, colour, label in (("gd", BLUE, "gradient descent"), ("sam", ORANGE, "SAM")):
        axes.plot(RADII, found[case, "solver"]["by_radius"], "o-", color=colour, ms=4.5, lw=1.0, label=label)
        axes.plot(RADII, found[case, "ode"]["by_radius"], "x", color=colour, ms=7)
    axes.axvline(1, color=GREY, lw=0.9, ls=":")
    _ticks(axes, [0.1, 0.3, 1.0, 3.0])
    axes.set_xlabel("distance of the start over ρ")
    title(axes, "Full batch: share that ends at the saddle", "48 directions; crosses: ODE")
    axes.legend(loc="center left")


def order_panel(results: Results, axes: Axes) -> None:
    """Distance of the means over the way made, by step size."""
    for rule, colour in zip(SEVEN, sequence(len(SEVEN)), strict=True):
        rows = results.one(f"track-rotated-{rule}")["rows"]
        eta, found = [row["eta"] for row in rows], [row["sdes"]["sde"] for row in rows]
        distance = [max(f["error"], 1e-4) / f["scale"] for f in found]
        stderr = [f["error_stderr"] / f["scale"] for f in found]
        axes.errorbar(eta, distance, stderr, color=colour, marker="o", ms=4, capsize=3, lw=1.2, label=TITLES[rule])
    axes.plot(eta, [0.2 * e for e in eta], color=GREY, ls=":", lw=1.2)
    _ticks(axes, eta)
    axes.set(yscale="log", xlabel="η")
    axes.set_ylim(bottom=3e-4)
    title(axes, "Distance of means over the way made", f"quadratic, {PROBLEMS['rotated']}; dotted: slope 1")
    axes.legend(fontsize=8, ncols=2, loc="lower right")


def controls_panel(results: Results, axes: Axes) -> None:
    """Ratios of covariances of all rules and problems at the smallest step size, and with twice the covariance."""
    data = list(results.data("track-*").values())
    for kind, colour, label in (("sde", BLUE, "SDE"), ("double", ORANGE, "twice the covariance")):
        found = [smallest(d, kind) for d in data]
        _ratio_marks(axes, range(len(data)), found, color=colour, ls="", ms=3.5, capsize=2, lw=1.0, label=label)
    starts = [i for i, d in enumerate(data) if i == 0 or data[i - 1]["problem"] != d["problem"]]
    for start in starts[1:]:
        axes.axvline(start - 0.5, color=GREY, lw=0.6)
    middles = [(a + b - 1) / 2 for a, b in itertools.pairwise([*starts, len(data)])]
    axes.set_xticks(middles, [data[i]["problem"] for i in starts], fontsize=8.5, rotation=20)
    axes.axhline(1, color=GREY, lw=0.9)
    axes.set_ylim(0, 1.9)
    title(axes, "Covariance, solver over SDE, smallest η", "trace at the end, every rule on every problem")
    axes.legend(loc="upper left", ncols=2)


FINDINGS: tuple[tuple[Any, str], ...] = (
    (noise_panel, "noise-sgd"),
    (phase_panel, "phases"),
    (decay_panel, "phases"),
    (heavy_panel, "heavy-sgd-1"),
    (radius_panel, "saddle"),
    (saddle_panel, "escape-dnsam"),
    (order_panel, "track-rotated-dnsam"),
    (controls_panel, "track-network-dnsam"),
)


def title(axes: Axes, text: str, remark: str) -> None:
    """The title of a panel, and what was done to the numbers."""
    axes.set_title(text, pad=20)
    note(axes, remark)


def _ratio_marks(axes: Axes, x: Sequence[float], found: Sequence[Any], **look: Any) -> None:
    """The ratios of covariances with 2 standard errors."""
    ratios = [f["ratio"] for f in found]
    axes.errorbar(x, ratios, [2 * f["ratio_stderr"] for f in found], marker="o", **look)


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with these marks and no others."""
    axes.set_xscale("log")
    axes.set_xticks(values, [short(v, 3) for v in values])
    axes.xaxis.set_minor_locator(NullLocator())
