"""What measuring neural collapse costs, in forward passes over the same data.

    python -m runs.benchmarks.collapse [--device cuda] [--quick] [--out FILE.json]

The statistics take one product of (D, n) with (n, D) in float64 per batch besides the forward pass; what that is in
forward passes depends on how much the network computes per feature. All ways run in alternation in one process; a
cost is the median over rounds of the ratio to the bare forward pass of the same round, with its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from landscape import Objective
from landscape.collapse import CollapseStatistics, gather, measure
from runs.benchmarks.environment import alternate, environment, in_units_of, peak_bytes
from runs.benchmarks.models import Problem, mlp, resnet
from runs.engine.jobs import write_json

RESULTS = Path("runs/out/benchmarks")
TARGET = 1.10  # of the statistics' pass on the CNN, in bare forward passes
Batches = list[tuple[Tensor, Tensor]]


def problems(device: torch.device, quick: bool) -> list[Problem]:
    """A CNN and an MLP; the batches are those of a loader for evaluation."""
    if quick:
        return [resnet(8, 8), mlp(64)]
    return [resnet(256, 64), mlp(1024)] if device.type == "cuda" else [resnet(64), mlp(512)]


def forward(model: nn.Module, batches: Batches) -> None:
    """The unit: the outputs of all batches, without gradients."""
    with torch.no_grad():
        for X, _ in batches:
            model(X)


def last_features(problem: Problem, batches: Batches) -> Batches:
    """What the last layer of a sequence gets, with the labels."""
    assert isinstance(problem.model, nn.Sequential)
    with torch.no_grad():
        return [(problem.model[:-1](X), y) for X, y in batches]


def updates(classes: int, pairs: Batches) -> None:
    """The statistics of features that are there already."""
    collected = CollapseStatistics(classes, pairs[0][0].shape[1])
    for features, labels in pairs:
        collected.update(features, labels)


def ways(problem: Problem, batches: Batches) -> dict[str, Callable[[], object]]:
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


def rows_of(problem: Problem, batches: Batches, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """One row per way: its cost in forward passes, with quartiles, and its peak memory."""
    contenders = ways(problem, batches)
    times = alternate(contenders, rounds, device)
    head = [module for module in problem.model.modules() if isinstance(module, nn.Linear)][-1]
    rows: list[dict[str, Any]] = []
    for name, way in contenders.items():
        middle, low, high = in_units_of(times["forward"], times[name])
        peak = peak_bytes(way, device)
        rows.append(
            {
                "model": problem.name,
                "parameters": sum(p.numel() for p in problem.model.parameters()),
                "features": head.in_features,
                "classes": head.out_features,
                "batches": len(batches),
                "batch": len(batches[0][1]),
                "way": name,
                "forward_passes": middle,
                "quartiles": [low, high],
                "milliseconds": 1e3 * statistics.median(times[name]),
                "peak_mib": None if peak is None else round(peak / 2**20, 1),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    title = "{model}: {batches} batches of {batch}, {features} features, {classes} classes".format(**rows[0])
    out = Table(title=title)
    for column in ("way", "forward passes", "quartiles", "ms", "peak MiB"):
        out.add_column(column, justify="left" if column == "way" else "right")
    for row in rows:
        low, high = row["quartiles"]
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        out.add_row(
            row["way"], f"{row['forward_passes']:.3f}", f"{low:.3f}-{high:.3f}", f"{row['milliseconds']:.1f}", peak
        )
    return out


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny models: does it run at all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args(words)
    device = torch.device(arguments.device)
    rounds, count = (2, 2) if arguments.quick else (arguments.rounds, arguments.batches)
    console = Console(width=120)
    rows: list[dict[str, Any]] = []
    for problem in problems(device, arguments.quick):
        problem.model.to(device)
        g = torch.Generator().manual_seed(0)
        batches = [(X.to(device), y.to(device)) for X, y in (problem.draw(g) for _ in range(count))]
        rows += rows_of(problem, batches, device, rounds)
        console.print(table([row for row in rows if row["model"] == problem.name]))
    cnn = next(r["forward_passes"] for r in rows if (r["model"], r["way"]) == ("resnet", "forward and statistics"))
    met = cnn <= TARGET
    if not arguments.quick:
        verdict = "within" if met else "above"
        console.print(f"the measuring pass on the CNN takes {cnn:.3f} forward passes: {verdict} the target {TARGET}")
    out = arguments.out or RESULTS / f"collapse-{device.type}.json"
    result = {"environment": environment(device), "target": TARGET, "met": met, "rows": rows}
    write_json(out, result)
    console.print(f"written to {out}")


if __name__ == "__main__":
    main()
