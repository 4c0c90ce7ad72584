"""What it costs to measure all layers of a GPT with twelve blocks at once, in units of the same on the whole matrix.

    python -m runs.benchmarks.by_layer [--quick] [--rounds N] [--device cuda] [--out FILE.json]

Width 128, 4 x 64 tokens, all graphs kept. Layers are the transformer's blocks, embeddings, norm and head (`by=2`), or
each module with parameters (`by="layer"`). A product is with one vector; the density is `density` of the whole matrix,
and the same of all layers by `blockwise`, graphs and all. Medians over rounds of the ratios of one round, quartiles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table

from landscape import BlockDiagonal, GaussNewton, Hessian, Objective
from landscape.operators.blocks.partition import By
from landscape.operators.linear import LinearOperator
from landscape.spectra import blockwise, density
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.models import gpt
from runs.benchmarks.timing import alternate, in_units_of, quartiles

PROBES, STEPS = 2, 6
WAYS: dict[str, By] = {"transformer blocks": 2, "modules": "layer"}


def measure(f: Objective, kind: type[Hessian | GaussNewton], rounds: int, device: torch.device) -> list[Row]:
    """One matrix: its products and densities, and those of its layers."""
    A = kind(f)
    v = A.random(1, "normal", torch.Generator().manual_seed(0))
    parts = {name: BlockDiagonal(A, by) for name, by in WAYS.items()}
    ways: dict[str, Callable[[], object]] = {"whole": partial(A.__matmul__, v)}
    ways |= {name: partial(D.__matmul__, v) for name, D in parts.items()}
    products = alternate(ways, rounds, device)
    for operator in (A, *parts.values()):
        operator.release()
    ways = {"whole": partial(quadratures, A)}
    ways |= {name: partial(blockwise, D, quadratures) for name, D in parts.items()}
    densities = alternate(ways, max(1, rounds // 3), device)
    return [
        {
            "matrix": kind.__name__,
            "layers": name,
            "count": len(D.layout),
            "parameters": f.size,
            "product, seconds": quartiles(products[name]),
            "product, ratio": in_units_of(products["whole"], products[name]),
            "density, seconds": quartiles(densities[name]),
            "density, ratio": in_units_of(densities["whole"], densities[name]),
        }
        for name, D in parts.items()
    ]


def quadratures(A: LinearOperator) -> object:
    """What is timed of a matrix or a block."""
    return density(A, probes=PROBES, steps=STEPS, generator=torch.Generator().manual_seed(0))


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = [
        (
            row["matrix"],
            f"{row['count']} {row['layers']}",
            *("{:.1f} ({:.1f}-{:.1f})".format(*row[f"{what}, ratio"]) for what in ("product", "density")),
        )
        for row in rows
    ]
    headings = "matrix", "layers", "product, in products of the whole", "density, of the whole's"
    return command.table("by layer", headings, cells, words=("layers",))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="2 blocks of width 16", rounds=5, device="cpu")
    work = gpt(batch=2, context=8, width=16, depth=2) if chosen.quick else gpt(batch=4, depth=12)
    f = Objective(work.model, work.loss, work.batches(1, chosen.device))
    rows = [row for kind in (Hessian, GaussNewton) for row in measure(f, kind, chosen.rounds, chosen.device)]
    console.print(table(rows))
    command.write(chosen, "by-layer", rows=rows)


if __name__ == "__main__":
    main()
