"""The rule for M of the experiments on SSCN, on data with more coordinates than samples."""

from __future__ import annotations

import torch

from runs.findings.finding import Finding, Seen, number
from runs.sscn.problems import make
from solvers import SSCN
from solvers.second_order.acceptance import Ratio

RUNS = (("44 × 7129", "wide", 200, 600), ("1200 × 1000", "square", 20, 3000), ("digits, 1797 × 61", "digits", 6, 4000))
RULES = {"ratio": Ratio(), "script": Ratio(share=0.5), "doubling": "doubling"}
STALLED, ON_ITS_WAY = 0.1, 0.01


def measure() -> Seen:
    """Where logistic regression with a non-convex regulariser stands after as many steps, by each rule.

    "ratio" judges a step by the model that it minimises, "script" as the published script does, with half the cubic
    term.
    """
    rows, norms = [], dict[str, list[float]]()
    for shape, name, size, steps in RUNS:
        for rule, acceptance in RULES.items():
            case, M = make(name, 0), 2.0 if rule == "script" else 1.0  # sigma = 1
            generator = torch.Generator().manual_seed(2)
            solver = SSCN(case.parameters, subspace=size, rule=acceptance, M=M, generator=generator)  # type: ignore[arg-type]
            taken, least = 0, float("inf")
            for _ in range(steps):
                solver.step(case.closure)
                assert solver.last is not None
                taken, least = taken + solver.last.accepted, min(least, solver.last.M)
            norm = case.gradient_norm()
            norms.setdefault(rule, []).append(norm)
            told = number(float(case.closure().detach())), number(norm), f"{taken} of {steps}", number(least)
            rows.append((f"{shape}, {size} coordinates, {rule}", *told))
    again = min(norms["ratio"] + norms["script"]) > STALLED and max(norms["doubling"]) < ON_ITS_WAY
    return Seen(("", "f", "‖∇f‖", "steps taken", "least M"), rows, again)


FINDING = Finding(
    "ratio-rule",
    "arXiv 2406.16666 (Zhao, Doikov, Lucchi 2024), code",
    "subspaces of any size converge; M follows the ratio of decreases, one M for all subspaces",
    "with that rule M falls to its floor on easy subspaces, steps fail on the others, and the loss stays far above "
    "what the same method reaches when M doubles on the same subspace until the step is taken",
    measure,
)
