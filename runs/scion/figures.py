"""The picture of `runs.scion`: batch sizes, the mu-KL ratio along training, step sizes of four solvers."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, sequence
from runs.engine.claims import Results
from runs.scion.claims import best_by_batch, losses
from runs.scion.jobs import BATCH, BATCHES, GRIDS, MU_EPOCHS, NETWORKS
from runs.shared.figures import save_pictures

_COLOURS = {"scion": ORANGE, "momentum": BLUE, "adam": GREEN, "sign": GREY}
_NAMES = {"scion": "Scion", "momentum": "SGD, momentum 0.9", "adam": "Adam", "sign": "SignSGD"}
_MARKS = {"mlp": "-", "cnn": "--"}


def figures(results: Results, folder: Path) -> list[Path]:
    """One PNG, where no job failed."""
    return [] if results.failures("*") else save_pictures(results, folder, {"scion.png": (overview, ())})


def overview(results: Results) -> Figure:
    """Three panels."""
    made, panels = figure(3)
    for axes, draw in zip(panels, (_batch, _mu, _step), strict=True):
        draw(results, axes)
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
    headline(axes, "The same number of images", "mean over seeds; solid: MLP, dashed: CNN; dots: best")


def _mu(results: Results, axes: Axes) -> None:
    for network in NETWORKS:
        for batch, colour in zip(MU_EPOCHS, (ORANGE, BLUE), strict=True):
            for i, run in enumerate(results.one(f"{network}-mu-{batch}")["runs"]):
                named = "all images" if batch != BATCH else f"batch {batch}"
                label = f"{network.upper()}, {named}" if i == 0 else None
                axes.plot(run["gap"], run["mu"], _MARKS[network], color=colour, lw=1.2, label=label)
    axes.invert_xaxis()
    axes.set(xlabel="training loss", ylabel="‖∇f‖_dual / f")
    headline(axes, "The mu-KL ratio along training", "all training images; a line for each seed")


def _step(results: Results, axes: Axes) -> None:
    for network in NETWORKS:
        for solver, middle in GRIDS.items():
            found = losses(results, f"{network}-solver-{solver}")
            label, lrs = _NAMES[solver] if network == "mlp" else None, [lr / middle for lr in found]
            axes.plot(lrs, [*found.values()], _MARKS[network], color=_COLOURS[solver], marker=".", label=label)
    axes.set(xlabel="lr / middle of the solver's grid", ylabel="training loss at the end")
    headline(axes, "Step sizes at batch 32", "mean over seeds; solid: MLP, dashed: CNN")
