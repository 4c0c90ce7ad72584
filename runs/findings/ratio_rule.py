"""The rule for M of the experiments on SSCN, on data with more coordinates than samples."""

from __future__ import annotations

import torch

from runs.findings.finding import Finding, Seen, number
from runs.sscn.problems import make
from solvers import SSCN

RUNS = (("44 × 7129", "wide", 200, 600), ("1200 × 1000", "square", 20, 3000))
STALLED, ON_ITS_WAY = 0.1, 0.01


def measure() -> Seen:
    """Where logistic regression with a non-convex regulariser stands after as many steps, by either rule."""
    rows, norms = [], dict[str, list[float]]()
    for shape, name, size, steps in RUNS:
        for rule in ("ratio", "doubling"):
            case = make(name, 0)
            solver = SSCN(case.parameters, subspace=size, rule=rule, generator=torch.Generator().manual_seed(2))
            taken, least = 0, float("inf")
            for _ in range(steps):
                solver.step(case.closure)
                assert solver.last is not None
                taken, least = taken + solver.last.accepted, min(least, solver.last.M)
            norm = case.gradient_norm()
            norms.setdefault(rule, []).append(norm)
            told = number(float(case.closure().detach())), number(norm), f"{taken} of {steps}", number(least)
            rows.append((f"{shape}, {size} coordinates, {rule}", *told))
    again = min(norms["ratio"]) > STALLED and max(norms["doubling"]) < ON_ITS_WAY
    return Seen(("", "f", "‖∇f‖", "steps taken", "least M"), rows, again)


FINDING = Finding(
    "ratio-rule",
    "arXiv 2406.16666 (Zhao, Doikov, Lucchi 2024), code",
    "subspaces of any size converge; M follows the ratio of decreases, one M for all subspaces",
    "with that rule M falls to its floor on easy subspaces, steps fail on the others, and the loss stays far above "
    "what the same method reaches when M doubles on the same subspace until the step is taken",
    measure,
)
