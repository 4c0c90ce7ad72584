"""What the self-check of second derivatives costs: in gradients of 32 samples, and as a share of `eigsh(k=5)`.

    python -m runs.benchmarks.self_check [--device cuda] [--quick] [--out FILE.json]

It is made once for a model as it is built; here it is made anew each time (`check="always"`). Gradients and checks run
in alternation; a cost is the median over rounds of the ratio to the gradient of the same round, with its quartiles.
The eigenpairs are those of one batch: of more data the check is a smaller share.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch import Tensor

from landscape import GaussNewton, Hessian, LinearOperator, Objective
from landscape.clock import stopwatch
from landscape.spectra import eigsh
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.models import Workload
from runs.benchmarks.products import problems
from runs.benchmarks.timing import alternate, in_units_of


def measure(problem: Workload, device: torch.device, rounds: int) -> list[Row]:
    """One row per operator."""
    batches = problem.batches(1, device)
    checked = Objective(problem.model, problem.loss, batches, check="always")
    plain = Objective(problem.model, problem.loss, batches, check=False)
    unit, zero = plain.sample(32), torch.zeros(plain.size, device=device)
    rows: list[Row] = []
    for operator in (Hessian, GaussNewton):
        ways: dict[str, Callable[[], object]] = {"gradient": unit.gradient}
        ways |= {name: partial(first_product, operator, f, zero) for name, f in (("with", checked), ("without", plain))}
        times = alternate(ways, rounds, device)
        check = [a - b for a, b in zip(times["with"], times["without"], strict=True)]
        cost, *spread = in_units_of(times["gradient"], check)
        verdict = str(first_product(operator, checked, zero).checked)
        eigenpairs = partial(eigsh, operator(plain), 5, generator=torch.Generator().manual_seed(0))
        seconds, pairs = stopwatch(eigenpairs, device)
        row: Row = {"model": problem.name, "parameters": plain.size, "operator": operator.__name__}
        row |= {"gradients": cost, "quartiles": spread, "share": statistics.median(check) / seconds}
        rows.append(row | {"products": pairs.matvecs, "eigsh_s": seconds, "checked": verdict})
    return rows


def first_product(operator: Callable[[Objective], LinearOperator], f: Objective, v: Tensor) -> LinearOperator:
    """A new operator after its first product."""
    A = operator(f)
    _ = A @ v
    return A


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = []
    for row in rows:
        cost = f"{row['gradients']:.1f}", "{:.1f}-{:.1f}".format(*row["quartiles"])
        cells.append((row["model"], row["operator"], *cost, f"{row['share']:.2%}", row["checked"]))
    headings = "model", "operator", "gradients", "quartiles", "of eigsh", "verdict"
    return command.table("cost of the self-check", headings, cells, words=("operator", "verdict"))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="tiny models", rounds=5, device=command.FASTEST)
    rows: list[Row] = []
    for problem in problems(chosen.device, chosen.quick):
        found = measure(problem, chosen.device, chosen.rounds)
        console.print(table(found))
        rows += found
    command.write(chosen, "self-check", rows=rows)


if __name__ == "__main__":
    main()
