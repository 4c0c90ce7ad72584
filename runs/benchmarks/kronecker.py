"""What K-FAC and EKFAC cost, in gradients: the factors, their eigenvectors, a product, a product with the inverse.

    python -m runs.benchmarks.kronecker [--device cuda] [--quick] [--out FILE.json]

By counting, the inverse product of a layer with P positions takes 2 (out + in) / (3 P) gradients. Products are the
median over rounds of the ratio to a gradient measured in the same round, with quartiles. Factors take fewer rounds,
eigenvectors are timed once; EKFAC needs them for its factors.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table

from landscape import EKFAC, KFAC, Objective
from landscape.clock import stopwatch
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.models import Batches, Workload
from runs.benchmarks.products import gradient, problems
from runs.benchmarks.timing import alternate, in_units_of

TARGET = 3.0  # of an inverse product on the ResNet and the GPT, in gradients
DAMPING = 1e-3
KINDS: dict[str, Callable[[Objective], KFAC | EKFAC]] = {
    "KFAC, fisher": lambda f: KFAC(f, "fisher", generator=torch.Generator().manual_seed(0)),
    "EKFAC, fisher": lambda f: EKFAC(f, "fisher", generator=torch.Generator().manual_seed(0)),
    "KFAC, gauss-newton": lambda f: KFAC(f, generator=torch.Generator().manual_seed(0)),
}


def measure(problem: Workload, batches: Batches, device: torch.device, rounds: int) -> list[Row]:
    """One row per operator."""
    objective = Objective(problem.model, problem.loss, batches)
    unit = gradient(problem, batches)
    v = torch.randn(objective.size, generator=torch.Generator().manual_seed(1)).to(device)
    rows: list[Row] = []
    for name, make in KINDS.items():
        whole: dict[str, Callable[[], object]] = {"gradient": unit, "factors": partial(measured_anew, make, objective)}
        few = alternate(whole, max(1, rounds // 4), device)
        K = make(objective)
        K.factored()
        eigenvectors, inverse = stopwatch(partial(K.inverse, DAMPING), device)
        ways: dict[str, Callable[[], object]] = {"gradient": unit}
        ways |= {"product": partial(K.__matmul__, v), "inverse": partial(inverse.__matmul__, v)}
        times = alternate(ways, rounds, device)
        row: Row = {"model": problem.name, "parameters": objective.size, "operator": name, "note": K.note}
        row |= {"gradient_ms": 1e3 * statistics.median(times["gradient"]), "eigenvectors_s": eigenvectors}
        row |= {"factors": in_units_of(few["gradient"], few["factors"])[0]}
        for way in ("product", "inverse"):
            cost, *spread = in_units_of(times["gradient"], times[way])
            row |= {way: cost, f"{way} quartiles": spread}
        rows.append(row)
    return rows


def measured_anew(make: Callable[[Objective], KFAC | EKFAC], objective: Objective) -> object:
    """The factors; for EKFAC, which needs them on the way, their eigenvectors as well."""
    return make(objective).factored()


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = [
        (
            row["model"],
            row["operator"],
            f"{row['factors']:.1f}",
            f"{row['eigenvectors_s']:.1f}",
            f"{row['product']:.2f}",
            f"{row['inverse']:.2f}",
            "{:.2f}-{:.2f}".format(*row["inverse quartiles"]),
        )
        for row in rows
    ]
    headings = "model", "operator", "factors", "eigenvectors (s)", "product", "inverse", "quartiles"
    return command.table("cost in gradients, eigenvectors in seconds", headings, cells, words=("operator",))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="tiny models", rounds=9, device=command.FASTEST)
    rows: list[Row] = []
    for problem in problems(chosen.device, chosen.quick):
        found = measure(problem, problem.batches(1, chosen.device), chosen.device, chosen.rounds)
        console.print(table(found))
        rows += found
    met = all(row["inverse"] <= TARGET for row in rows if row["model"] != "mlp")
    command.write(chosen, "kronecker", target=TARGET, met=met, rows=rows)


if __name__ == "__main__":
    main()
