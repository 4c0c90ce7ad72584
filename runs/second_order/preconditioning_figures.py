"""The picture of preconditioned condition numbers: along training, by threshold, and against the steps that follow."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline
from runs.engine.claims import Results
from runs.second_order.preconditioning import MODEL, THRESHOLDS
from runs.second_order.preconditioning_claims import AT, JOBS, kappas, runs

PURPLE = "#CC79A7"
NAMES = {"none": "none", "adam": "Adam", "shampoo": "Shampoo", "soap": "SOAP", "kfac": "K-FAC"}
COLOURS = dict(zip(NAMES, (GREY, BLUE, GREEN, PURPLE, ORANGE), strict=True))
MARKS = {"mlp": "-", "cnn": "--"}


def overview(results: Results) -> Figure:
    """Three panels."""
    made, (training, thresholds, steps) = figure(3)
    _training(results, training)
    _thresholds(results, thresholds)
    _steps(results, steps)
    return made


def _training(results: Results, axes: Axes) -> None:
    found = kappas(results)
    for network in dict.fromkeys(where.split()[0] for where in found):
        moments = [where.split()[1] for where in found if where.startswith(f"{network} ")]
        for name, label in NAMES.items():
            values = [found[f"{network} {moment}"][name][AT] for moment in moments]
            shown = label if network != "cnn" else None
            axes.plot(moments, values, MARKS.get(network, "-"), marker=".", color=COLOURS[name], label=shown)
    axes.set(yscale="log", ylabel=f"κ at threshold {MODEL:g}")
    axes.legend(fontsize=8)
    headline(axes, "κ(P^-1/2 G P^-1/2) along training", "medians over seeds; solid: MLP, dashed: CNN")


def _thresholds(results: Results, axes: Axes) -> None:
    for where, medians in kappas(results).items():
        network, moment = where.split()
        for name in NAMES if moment == "end" else ():
            axes.plot(THRESHOLDS, medians[name], MARKS.get(network, "-"), marker=".", color=COLOURS[name])
    axes.set(xscale="log", yscale="log", xlabel="eigenvalues of G above, in units of its largest", ylabel="κ")
    axes.invert_xaxis()
    headline(axes, "κ at the end, by threshold", "without a preconditioner 1 / threshold by construction")


def _steps(results: Results, axes: Axes) -> None:
    reach = []
    for _, seen in runs(results):
        for name in NAMES:
            found = seen["model"][name]
            reach.append((found["kappa"], found["predicted"]))
            axes.plot(found["kappa"], found["taken"], ".", ms=4, color=COLOURS[name])
    axes.plot(*zip(*sorted(reach), strict=True), color="black", lw=1, label="at most, by κ")
    axes.set(xscale="log", yscale="log", xlabel="κ on the local quadratic", ylabel="steps to a thousandth of the gap")
    axes.legend(fontsize=8)
    headline(axes, "κ and the steps that follow", "all networks, moments and seeds")


PICTURES = {"second-order-preconditioning.png": (overview, (JOBS,))}
