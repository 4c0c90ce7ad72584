"""Products for all eigenvalues above 2/eta at the edge of stability, beside a fixed number that happens to be right.

    python -m runs.benchmarks.thresholds [--quick] [--out FILE.json]

Gradient descent of `runs.edge_of_stability` (square loss, digits), from where it has come to 2/eta. At each measurement
`eigsh(H, above=2/eta)` and `eigsh(H, k)` with the number that the first one found (one where there is none) start from
the vectors that each found last, with the same generator and the proof that none was missed.
"""

from __future__ import annotations

import torch

from landscape import Hessian, Objective
from landscape.spectra import eigsh
from probes.digits import build_network
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.edge_of_stability.data import images, network
from runs.shared.training import half_square, one_hot, update

# Learning rate, steps until 2/eta is reached, steps measured and every which of them, tolerance.
RUNS = ((0.4, 300, 200, 10, 1e-3), (0.8, 200, 200, 10, 1e-2))
QUICK = ((0.8, 60, 10, 5, 1e-2),)
IMAGES = 500


def follow(rate: float, before: int, steps: int, every: int, tol: float) -> Row:
    """One run: the products of both ways in all, and the numbers above 2/eta."""
    x, y = images("digits")
    x, targets = x[:IMAGES], one_hot(y)[:IMAGES]
    model = build_network(lambda: network(64, 64), 0)
    H = Hessian(Objective(model, half_square, (x, targets)))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    starts: dict[str, torch.Tensor | None] = {"above": None, "fixed": None}
    made = dict.fromkeys(starts, 0)
    numbers, unsure = [], 0
    for step in range(before + steps + 1):
        if step >= before and (step - before) % every == 0:
            seeded = lambda: torch.Generator().manual_seed(step)  # noqa: B023, E731
            found = eigsh(H, above=2.0 / rate, tol=tol, v0=starts["above"], generator=seeded())
            k = max(1, len(found.values))
            fixed = eigsh(H, k, tol=tol, v0=starts["fixed"], generator=seeded())
            numbers.append(len(found.values))
            unsure += not (found.converged and fixed.converged)
            starts["fixed"] = fixed.vectors
            starts["above"] = found.vectors if numbers[-1] else starts["above"]
            made["above"] += found.matvecs
            made["fixed"] += fixed.matvecs
        update(optimizer, lambda: half_square(model(x), targets))
    settings = {"rate": rate, "tol": tol, "measurements": len(numbers), "parameters": H.shape[0]}
    ratio = made["above"] / made["fixed"]
    return settings | {"least": min(numbers), "most": max(numbers), "unsure": unsure, **made, "ratio": ratio}


def main() -> None:
    """All runs, a table and a file."""
    chosen = command.arguments(None, __doc__, quick="a few steps")
    rows = [follow(*run) for run in (QUICK if chosen.quick else RUNS)]
    formats = ("{rate:g}", "{tol:g}", "{least} to {most}", "{above}", "{fixed}", "{ratio:.2f}")
    cells = [[form.format(**row) for form in formats] for row in rows]
    headings = ("eta", "tol", "above 2/eta", "products", "of the right k", "ratio")
    console.print(command.table("All eigenvalues above 2/eta, warm started", headings, cells))
    command.write(chosen, "thresholds", rows=rows, images=IMAGES)


if __name__ == "__main__":
    main()
