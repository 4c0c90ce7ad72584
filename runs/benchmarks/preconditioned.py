"""Milliseconds of the processor for a step of solvers with curvature: forward, derivatives and update.

    python -m runs.benchmarks.preconditioned [--quick] [--rounds N] [--out FILE.json]

Beside those of pytorch-optimizer where it is installed (in an environment of its own: `pip install pytorch_optimizer`),
with the same interval between estimates, the same kind of probe and the same side limits; torch's AdamW is the unit. A
round has `ROUND` steps of each on one model, so that intervals of ten are whole; a ratio is the median of the ratios of
the same round. The models are those of `runs.benchmarks.models`, in float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

import solvers
from landscape import Objective
from runs.benchmarks import command, models
from runs.benchmarks.command import Row, console
from runs.benchmarks.timing import alternate, in_units_of

try:
    import pytorch_optimizer as peer
except ImportError:
    peer = None

ROUND = 10
UNIT = "torch AdamW"
LR = 1e-6  # so small that the model is the same for all
Step = Callable[[], object]


def ours(solver: Any, closure: Callable[[], Tensor], **more: Any) -> Step:
    """Ten steps by closures."""

    def steps() -> None:
        for _ in range(ROUND):
            solver.step(closure, **more)

    return steps


def theirs(optimizer: Any, closure: Callable[[], Tensor], every: int = 0) -> Step:
    """Ten steps by `.grad`, whose graph is kept at every `every`-th, 0 for none.

    It is put there by hand: `backward(create_graph=True)` keeps parameters and graph alive in a circle.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def steps() -> None:
        for k in range(ROUND):
            graph = bool(every) and k % every == 0
            gradients = torch.autograd.grad(closure(), parameters, create_graph=graph)
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
            optimizer.step()
            for p in parameters:
                p.grad = None

    return steps


def contenders(workload: models.Workload) -> dict[str, tuple[str, Step]]:
    """(what it is compared with, ten steps) of each."""
    ((X, y),) = workload.batches(1, torch.device("cpu"))
    parameters = list(workload.model.parameters())

    def closure() -> Tensor:
        return workload.loss(workload.model(X), y)

    def kfac(kind: Any) -> Step:
        objective = Objective(workload.model, workload.loss, (X, y))
        return ours(solvers.KFACDescent(objective, LR, kind=kind, every=ROUND), closure, batch=(X, y))

    made: dict[str, tuple[str, Step]] = {
        UNIT: (UNIT, theirs(torch.optim.AdamW(parameters, LR, fused=True), closure)),
        "AdaHessian": ("its AdaHessian", ours(solvers.AdaHessian(parameters, LR, average=False), closure)),
        "Sophia-H": ("its SophiaH", ours(solvers.Sophia(parameters, LR), closure)),
        "Sophia-G": (UNIT, ours(solvers.Sophia(parameters, LR, curvature="gauss-newton"), closure)),
        "OASIS": (UNIT, ours(solvers.OASIS(parameters, LR), closure)),
        "SANIA": (UNIT, ours(solvers.SANIA(parameters, LR), closure)),
        "Shampoo": (UNIT, ours(solvers.Shampoo(parameters, LR, every=ROUND), closure)),
        "SOAP": ("its SOAP", ours(solvers.SOAP(parameters, LR), closure)),
        "K-FAC": (UNIT, kfac("kfac")),
        "EKFAC": (UNIT, kfac("ekfac")),
    }
    if peer is not None:
        hutchinson = {"update_period": 1, "num_samples": 1, "hessian_distribution": "rademacher"}
        made |= {
            "its AdaHessian": (UNIT, theirs(peer.AdaHessian(parameters, LR, **hutchinson), closure, 1)),
            "its SophiaH": (UNIT, theirs(peer.SophiaH(parameters, LR, update_period=10), closure, 10)),
            "its SOAP": (UNIT, theirs(peer.SOAP(parameters, LR, precondition_frequency=10), closure)),
        }
    return made


def measure(workload: models.Workload, rounds: int) -> list[Row]:
    """A row for each contender: milliseconds of a step (median), and its ratios (median and quartiles)."""
    made = contenders(workload)
    times = alternate({name: step for name, (_, step) in made.items()}, rounds, torch.device("cpu"), processor=True)
    rows = []
    for name, (to, _) in made.items():
        row: Row = {"model": workload.name, "name": name, "milliseconds": 1e3 * statistics.median(times[name]) / ROUND}
        for key, unit in (("ratio", UNIT), ("peer", to)):
            row[key] = in_units_of(times[unit], times[name]) if unit in times else None
        rows.append(row | {"to": to if to in times else UNIT})
    return rows


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = []
    for row in rows:
        ratios = [f"{r[0]:.2f} ({r[1]:.2f} to {r[2]:.2f})" if r else "" for r in (row["ratio"], row["peer"])]
        cells.append((row["model"], row["name"], f"{row['milliseconds']:.1f}", ratios[0], ratios[1], row["to"]))
    headings = "model", "solver", "processor ms a step (median)", "ratio to AdamW (quartiles)", "ratio", "to"
    return command.table("whole steps", headings, cells, words=("solver", "to"))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="small networks, two rounds", rounds=15)
    made = [models.gpt(2, 8, 16, 1, 2, 32)] if chosen.quick else [models.mlp(), models.gpt()]
    rows = [row for workload in made for row in measure(workload, chosen.rounds)]
    console.print(table(rows))
    command.write(chosen, "preconditioned", rounds=chosen.rounds, steps=ROUND, rows=rows)


if __name__ == "__main__":
    main()
