"""The margin T of the alpha-beta-condition as captions print it, on the paper's own examples."""

from __future__ import annotations

import numpy as np

from landscape.regularity.examples import grid
from runs.findings.finding import Finding, Seen, number
from runs.function_class.examples import PLANE, PLANES

POINTS = 141  # a side of the grid


def measure() -> Seen:
    """Least T over both functions and the plane at each stated pair, by Definition 1 and as printed."""
    rows, ours, printed = [], [], []
    for name, make in PLANES.items():
        problem = make()
        t, (alpha, beta) = problem.trajectory(grid(*PLANE, POINTS)), problem.pairs[0]
        above = t.loss - t.infimum
        least = [float(np.min(t.inner - alpha * t.drop + sign * beta * above)) for sign in (1, -1)]
        rows.append((f"Example {name}", number(alpha), number(beta), *map(number, least)))
        ours.append(least[0] >= -1e-9 * beta)
        printed.append(least[1] < 0)
    return Seen(("", "α", "β", "least T, +β", "least T, −β"), rows, all(ours) and all(printed))


FINDING = Finding(
    "alpha-beta-sign",
    "arXiv 2410.12455 (Islamov et al. 2024), captions of the maps",
    "T = ⟨∇f, x − x_K⟩ − α (f(x) − f(x_K)) − β f(x) ≥ 0 is the condition",
    "with −β the paper's own pairs fail on its own examples; with +β, as in Definition 1, they all work",
    measure,
)
