"""What one Hessian and one Gauss-Newton product cost, in gradients, beside PyHessian and curvlinops.

    python -m runs.benchmarks.products [--device cuda] [--quick] [--out FILE.json]

By counting matrix products a Hessian product costs 2.0 gradients with its graph kept and 3.0 rebuilt, a Gauss-Newton
product 4/3 and 5/3. All contenders run in alternation in one process; a cost is the median over rounds of the ratio
to a gradient measured in the same round, with its quartiles.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch import Tensor

from landscape import GaussNewton, Hessian, Objective
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.models import Batches, Workload, gpt, mlp, resnet
from runs.benchmarks.timing import alternate, in_units_of, peak_mib

Product = Callable[[Tensor], Tensor]


def problems(device: torch.device, quick: bool) -> list[Workload]:
    """The same shapes everywhere, larger on a device that would only wait for its launches otherwise."""
    if device.type == "cuda" and not quick:
        return [mlp(512), resnet(256, 64), gpt(8, 256, 512, 8, 8, 4096)]
    return [mlp(64), resnet(4, 8), gpt(2, 16, 32, 2)] if quick else [mlp(), resnet(), gpt()]


def ours(problem: Workload, batches: Batches, vectors: int) -> dict[str, Product]:
    """Kept graphs, and with several batches also all but one rebuilt at every product."""
    objective = Objective(problem.model, problem.loss, batches)
    ways: dict[str, Product] = {
        "Hessian": Hessian(objective).__matmul__,
        "Gauss-Newton": GaussNewton(objective).__matmul__,
    }
    if len(batches) > 1 and vectors == 1:
        tight = Objective(problem.model, problem.loss, batches, memory=0)
        ways["Hessian, rebuilt"] = Hessian(tight).__matmul__
        ways["Gauss-Newton, rebuilt"] = GaussNewton(tight).__matmul__
    return ways


def curvlinops(problem: Workload, batches: Batches) -> dict[str, Product]:
    """The products of curvlinops 3, without its check of determinism (which costs several passes)."""
    try:
        from curvlinops import GGNLinearOperator, HessianLinearOperator
    except ImportError:
        return {}
    parameters = [p for p in problem.model.parameters() if p.requires_grad]
    operators = {"Hessian": HessianLinearOperator, "Gauss-Newton": GGNLinearOperator}
    known = problem.model, problem.loss, parameters, batches
    made = {name: operator(*known, check_deterministic=False) for name, operator in operators.items()}
    return {f"{name}, curvlinops": operator.__matmul__ for name, operator in made.items()}


def pyhessian(problem: Workload, batches: Batches, device: torch.device) -> dict[str, Product]:
    """PyHessian's product: on one batch it keeps the graph, on a loader it rebuilds everything."""
    try:
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product
    except ImportError:
        return {}
    cuda = device.type == "cuda"
    for p in problem.model.parameters():  # its constructor runs backward: what .grad holds would be added to H
        p.grad = None
    single = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    peer = hessian(problem.model, problem.loss, cuda=cuda, **single)
    shapes = [p.shape for p in peer.params]

    def product(V: Tensor) -> Tensor:
        columns = []
        for v in V.reshape(len(V), -1).T:
            pieces = [x.reshape(s) for x, s in zip(v.split([s.numel() for s in shapes]), shapes, strict=True)]
            if len(batches) > 1:
                result = peer.dataloader_hv_product(pieces)[1]
            else:
                result = hessian_vector_product(peer.gradsH, peer.params, pieces)
            columns.append(torch.cat([r.detach().reshape(-1) for r in result]))
        return torch.stack(columns, dim=-1).reshape(V.shape)

    return {"Hessian, PyHessian": product}


def gradient(problem: Workload, batches: Batches) -> Callable[[], object]:
    """The unit: forward and backward on every batch."""
    parameters = list(problem.model.parameters())

    def run() -> None:
        for X, y in batches:
            torch.autograd.grad(problem.loss(problem.model(X), y), parameters)

    return run


def measure(problem: Workload, batches: Batches, vectors: int, device: torch.device, rounds: int) -> list[Row]:
    """One row per contender: cost in gradients per vector, error against float64, peak memory."""
    n = sum(p.numel() for p in problem.model.parameters())
    V = torch.randn(n, vectors, generator=torch.Generator().manual_seed(1)).to(device).squeeze(-1)
    contenders = ours(problem, batches, vectors)
    if vectors == 1 or len(batches) == 1:  # what the peers do per vector does not depend on how many follow
        contenders |= curvlinops(problem, batches) | pyhessian(problem, batches, device)
    ways: dict[str, Callable[[], object]] = {"gradient": gradient(problem, batches)}
    ways |= {name: partial(product, V) for name, product in contenders.items()}
    times = alternate(ways, rounds, device)
    errors = error_of(problem, batches, V, contenders) if len(batches) == 1 else {}
    rows: list[Row] = []
    for name in contenders:
        cost, *spread = (x / vectors for x in in_units_of(times["gradient"], times[name]))
        row: Row = {"model": problem.name, "parameters": n, "batches": len(batches), "vectors": vectors}
        row |= {"product": name, "gradients": cost, "quartiles": spread, "error": errors.get(name)}
        row |= {"peak_mib": peak_mib(ways[name], device) if vectors == 1 else None}
        rows.append(row | {"gradient_ms": 1e3 * statistics.median(times["gradient"])})
    return rows


def error_of(problem: Workload, batches: Batches, V: Tensor, contenders: dict[str, Product]) -> dict[str, float]:
    """Relative error of each contender's product against ours in float64 (which the tests hold to dense autodiff)."""
    exact = Objective(problem.model, problem.loss, batches, dtype=torch.float64)
    truth = {"Hessian": Hessian(exact) @ V, "Gauss-Newton": GaussNewton(exact) @ V}
    errors = {}
    for name, product in contenders.items():
        expected = truth[name.split(",")[0]]
        errors[name] = float((product(V).double() - expected).norm() / expected.norm())
    return errors


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = []
    for row in rows:
        cost = f"{row['gradients']:.2f}", "{:.2f}-{:.2f}".format(*row["quartiles"])
        error = "" if row["error"] is None else f"{row['error']:.1e}"
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        cells.append((row["model"], str(row["batches"]), str(row["vectors"]), row["product"], *cost, error, peak))
    headings = "model", "batches", "vectors", "product", "gradients", "quartiles", "error", "peak MiB"
    return command.table("cost of one product per vector, in gradients", headings, cells, words=("product",))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="tiny models", rounds=9, device=command.FASTEST)
    warnings.filterwarnings("ignore")  # of the peers' imports
    fewer = max(1, chosen.rounds // 4)
    rounds = {(1, 1): chosen.rounds, (1, 8): fewer, (16, 1): fewer, (16, 8): 1}  # the more costly, the fewer
    rows: list[Row] = []
    for problem in problems(chosen.device, chosen.quick):
        batches, found = problem.batches(16, chosen.device), list[Row]()
        for (count, vectors), times in rounds.items():
            found += measure(problem, batches[:count], vectors, chosen.device, times)
        console.print(table(found))
        rows += found
    command.write(chosen, "products", rows=rows)


if __name__ == "__main__":
    main()
