"""The picture of `runs.scion`: batch sizes, the mu-KL ratio along training, step sizes of four solvers."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, note, save, sequence, style
from runs.engine.claims import Results
from runs.scion.claims import best_by_batch, losses
from runs.scion.jobs import BATCH, BATCHES, GRIDS, MU_EPOCHS, NETWORKS

_COLOURS = {"scion": ORANGE, "momentum": BLUE, "adam": GREEN, "sign": GREY}
_NAMES = {"scion": "Scion", "momentum": "SGD, momentum 0.9", "adam": "Adam", "sign": "SignSGD"}
_MARKS = {"mlp": "-", "cnn": "--"}


def figures(results: Results, folder: Path) -> list[Path]:
    """One PNG, where the jobs are finished."""
    if results.failures("*"):
        return []
    with style():
        return [save(overview(results), folder / "scion.png")]


def overview(results: Results) -> Figure:
    """Three panels."""
    made, (batch, mu, step) = figure(3)
    _batch(results, batch)
    _mu(results, mu)
    _step(results, step)
    for axes in (batch, mu, step):
        axes.set(xscale="log", yscale="log")
        axes.legend(fontsize=8)
    return made


def _batch(results: Results, axes: Axes) -> None:
    colours = dict(zip(BATCHES, sequence(len(BATCHES)), strict=True))
    for network in NETWORKS:
        for b, colour in colours.items():
            if results.data(job := f"{network}-batch-{b}"):
                found = losses(results, job)
                label = f"batch {b}" if network == "mlp" else None
                axes.plot(*zip(*found.items(), strict=True), _MARKS[network], color=colour, lw=1.3, label=label)
        loss, lr = zip(*best_by_batch(results)[network].values(), strict=True)
        axes.plot(lr, loss, "o", ms=4, color="black")
    axes.set(xlabel="lr of Scion", ylabel="training loss at the end")
    axes.set_title("The same number of images", pad=22)
    note(axes, "mean over seeds; solid: MLP, dashed: CNN; dots: best")


def _mu(results: Results, axes: Axes) -> None:
    for network in NETWORKS:
        for batch, colour in zip(MU_EPOCHS, (ORANGE, BLUE), strict=True):
            for i, run in enumerate(results.one(f"{network}-mu-{batch}")["runs"]):
                named = "all images" if batch != BATCH else f"batch {batch}"
                label = f"{network.upper()}, {named}" if i == 0 else None
                axes.plot(run["gap"], run["mu"], _MARKS[network], color=colour, lw=1.2, label=label)
    axes.invert_xaxis()
    axes.set(xlabel="training loss", ylabel="‖∇f‖_dual / f")
    axes.set_title("The mu-KL ratio along training", pad=22)
    note(axes, "all training images; a line for each seed")


def _step(results: Results, axes: Axes) -> None:
    for network in NETWORKS:
        for solver, middle in GRIDS.items():
            found = losses(results, f"{network}-solver-{solver}")
            label, lrs = _NAMES[solver] if network == "mlp" else None, [lr / middle for lr in found]
            axes.plot(lrs, [*found.values()], _MARKS[network], color=_COLOURS[solver], marker=".", label=label)
    axes.set(xlabel="lr / middle of the solver's grid", ylabel="training loss at the end")
    axes.set_title("Step sizes at batch 32", pad=22)
    note(axes, "mean over seeds; solid: MLP, dashed: CNN")
