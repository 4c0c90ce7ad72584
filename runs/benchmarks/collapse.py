"""What measuring neural collapse costs, in forward passes over the same data.

    python -m runs.benchmarks.collapse [--device cuda] [--quick] [--out FILE.json]

The statistics take one product of (D, n) with (n, D) in float64 per batch besides the forward pass; what that is in
forward passes depends on how much the network computes per feature. All ways run in alternation in one process; a
cost is the median over rounds of the ratio to the bare forward pass of the same round, with its quartiles.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch import nn

from landscape import Objective
from landscape.collapse import CollapseStatistics, gather, measure
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.models import Batches, Workload, mlp, resnet
from runs.benchmarks.timing import alternate, in_units_of, peak_mib

TARGET = 1.10  # of the statistics' pass on the CNN, in bare forward passes


def problems(device: torch.device, quick: bool) -> list[Workload]:
    """A CNN and an MLP; the batches are those of a loader for evaluation."""
    if quick:
        return [resnet(8, 8), mlp(64)]
    return [resnet(256, 64), mlp(1024)] if device.type == "cuda" else [resnet(64), mlp(512)]


def forward(model: nn.Module, batches: Batches) -> None:
    """The unit: the outputs of all batches, without gradients."""
    with torch.no_grad():
        for X, _ in batches:
            model(X)


def last_features(problem: Workload, batches: Batches) -> Batches:
    """What the last layer of a sequence gets, with the labels."""
    assert isinstance(problem.model, nn.Sequential)
    with torch.no_grad():
        return [(problem.model[:-1](X), y) for X, y in batches]


def updates(classes: int, pairs: Batches) -> None:
    """The statistics of features that are there already."""
    collected = CollapseStatistics(classes, pairs[0][0].shape[1])
    for features, labels in pairs:
        collected.update(features, labels)


def ways(problem: Workload, batches: Batches) -> dict[str, Callable[[], object]]:
    """What is measured, beside the bare forward pass."""
    objective = Objective(problem.model, problem.loss, batches)
    tight = Objective(problem.model, problem.loss, batches, memory=0)
    return {
        "forward": partial(forward, problem.model, batches),
        "statistics alone": partial(updates, 10, last_features(problem, batches)),
        "forward and statistics": partial(gather, objective),
        "NC0 to NC3": partial(measure, objective, nc4=False),
        "NC0 to NC4, features held": partial(measure, objective),
        "NC0 to NC4, two passes": partial(measure, tight),
    }


def rows_of(problem: Workload, batches: Batches, device: torch.device, rounds: int) -> list[Row]:
    """One row per way: its cost in forward passes, with quartiles, and its peak memory."""
    contenders = ways(problem, batches)
    times = alternate(contenders, rounds, device)
    head = [module for module in problem.model.modules() if isinstance(module, nn.Linear)][-1]
    common = {"model": problem.name, "parameters": sum(p.numel() for p in problem.model.parameters())}
    common |= {"features": head.in_features, "classes": head.out_features}
    common |= {"batches": len(batches), "batch": len(batches[0][1])}
    rows: list[Row] = []
    for name, way in contenders.items():
        passes, *spread = in_units_of(times["forward"], times[name])
        row = common | {"way": name, "forward_passes": passes, "quartiles": spread}
        rows.append(row | {"milliseconds": 1e3 * statistics.median(times[name]), "peak_mib": peak_mib(way, device)})
    return rows


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    title = "{model}: {batches} batches of {batch}, {features} features, {classes} classes".format(**rows[0])
    cells = []
    for row in rows:
        times = f"{row['forward_passes']:.3f}", "{:.3f}-{:.3f}".format(*row["quartiles"]), f"{row['milliseconds']:.1f}"
        cells.append((row["way"], *times, "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"))
    return command.table(title, ("way", "forward passes", "quartiles", "ms", "peak MiB"), cells)


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    wanted = {"type": int, "default": 8}
    chosen = command.arguments(words, __doc__, quick="tiny models", rounds=9, device=command.FASTEST, batches=wanted)
    rows: list[Row] = []
    for problem in problems(chosen.device, chosen.quick):
        batches = problem.batches(2 if chosen.quick else chosen.batches, chosen.device)
        found = rows_of(problem, batches, chosen.device, chosen.rounds)
        console.print(table(found))
        rows += found
    cnn = next(r["forward_passes"] for r in rows if (r["model"], r["way"]) == ("resnet", "forward and statistics"))
    met = cnn <= TARGET
    if not chosen.quick:
        verdict = "within" if met else "above"
        console.print(f"the measuring pass on the CNN takes {cnn:.3f} forward passes: {verdict} the target {TARGET}")
    command.write(chosen, "collapse", target=TARGET, met=met, rows=rows)


if __name__ == "__main__":
    main()
