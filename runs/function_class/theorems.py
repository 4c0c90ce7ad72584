"""The jobs of `runs.function_class` on the theorems: bound and measured on a problem whose constants are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.regularity import (
    Bound,
    ProblemConstants,
    adagrad_norm_max,
    alpha_beta,
    dec_sps,
    one_step_decrease,
    sgd_constant,
    sgd_decreasing,
)
from landscape.regularity.examples import FiniteSum, two_functions
from probes.sweep.jobs import Job, JobContext
from solvers import AdaGradNorm, DecSPS

Array = NDArray[np.float64]
REGION = (-10.0, 10.0)
START, GAP = 3.0, 0.5
HORIZONS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
BOUNDS: dict[str, Callable[..., Bound]] = {
    "constant": sgd_constant,
    "decreasing": sgd_decreasing,
    "decsps": dec_sps,
    "adagrad": adagrad_norm_max,
}


def plan(quick: bool) -> list[Job]:
    """The jobs; the reduced ones have fewer runs and steps."""
    sgd = {"runs": 100, "horizons": list(HORIZONS[:5])} if quick else {"runs": 2000, "horizons": list(HORIZONS)}
    few = {"runs": 20, "horizons": list(HORIZONS[:4])} if quick else {"runs": 100, "horizons": list(HORIZONS[:7])}
    parts = ("constant", 1.0), ("constant", 0.25), ("constant", 0.0625), ("decreasing", 1.0)
    jobs = [Job(f"theorem-{rule}-{part:g}", theorem, {"rule": rule, "part": part} | sgd) for rule, part in parts]
    return jobs + [
        Job(f"theorem-{rule}-{lr:g}", adaptive, {"rule": rule, "lr": lr} | few)
        for rule, lr in (("decsps", 0.1), ("decsps", 1.0), ("adagrad", 1.0), ("adagrad", 10.0))
    ]


def _constants(problem: FiniteSum) -> ProblemConstants:
    beta = alpha_beta(problem.trajectory(np.linspace(*REGION, 20_001)[:, None]), GAP).beta
    return ProblemConstants(beta + GAP, beta, problem.smoothness, problem.sigma2)


def theorem(job: JobContext, rule: str, part: float, runs: int, horizons: list[int]) -> dict[str, Any]:
    """SGD on the two-function problem: the one-step inequality at every point, and the best mean loss by steps.

    `part` is the step size over the largest that the theorem allows.
    """
    problem = two_functions()
    c = _constants(problem)
    lr = part * GAP / (2 * c.smoothness)
    rng = np.random.default_rng(job.seed)
    x = np.full((runs, 1), START)
    heights, reached, drops = np.empty((horizons[-1], runs)), 0.0, []
    for k in range(horizons[-1]):
        step = lr / (k + 1) ** 0.5 if rule == "decreasing" else lr
        gradients, heights[k] = problem.gradients(x), problem.values(x).mean(axis=0) - problem.minimum
        after = ((x - step * gradients) ** 2).sum(axis=2).mean(axis=0)
        drops.append(_tightest(c, step, x, heights[k], after))
        reached = max(reached, float(np.abs(x).max()))
        x = x - step * gradients[rng.integers(2, size=runs), np.arange(runs)]
        job.progress(k, horizons[-1])
    promise = {"lr": lr, "distance": START}
    ratio, gap = max(found[0] for found in drops), min(found[1] for found in drops)
    seen = {"points": runs * horizons[-1], "tightest": ratio, "largest_gap": gap}
    return _told(rule, c, promise, heights, reached, horizons) | seen


def _tightest(c: ProblemConstants, lr: float, x: Array, height: Array, after: Array) -> tuple[float, float]:
    """The largest E_i |x+ - x_p|^2 over its bound, and the largest alpha - beta for which the bound still holds."""
    origin = one_step_decrease(c, lr=lr, distance=0.0, gap_to_optimum=0.0)
    before = (x**2).sum(axis=1) + origin
    bound = before - lr * c.gap * height
    inside = height > 1e-9
    most = (before - after)[inside] / (lr * height[inside])
    return float((after / bound).max()), float(most.min(initial=np.inf))


def adaptive(job: JobContext, rule: str, lr: float, runs: int, horizons: list[int]) -> dict[str, Any]:
    """DecSPS with the first step `lr`, or AdaGrad-norm-max, on the two-function problem: runs with a solver each.

    What the theorems assume bounded is taken as it was met: the distance to the minimiser, the norm of the gradients.
    """
    problem = two_functions()
    c, low = _constants(problem), float(problem.infimum[0])
    b0 = 2 * c.smoothness * lr / c.gap
    x = np.empty((horizons[-1], runs))
    rng = np.random.default_rng(job.seed)
    for run in range(runs):
        place = torch.tensor([START], dtype=torch.float64, requires_grad=True)
        solver: Any = (
            DecSPS([place], lr, c0=1 / c.gap, lower_bound=low)
            if rule == "decsps"
            else AdaGradNorm([place], lr, b0=b0, variant="max")
        )
        for k, sign in enumerate(rng.choice([1.0, -1.0], size=horizons[-1])):
            x[k, run] = float(place.detach())
            solver.step(lambda z=place, s=sign: (0.5 * (z - s).square() + torch.sin(z).square()).sum())
        job.progress(run, runs)
    points = x.reshape(-1, 1)
    heights = (problem.values(points).mean(axis=0) - problem.minimum).reshape(x.shape)
    reached = float(np.abs(x).max())
    largest = float(np.abs(problem.gradients(np.linspace(-reached, reached, 2001)[:, None])).max())
    smallest = float(np.abs(problem.gradients(np.array([[START]]))).min())
    promises = {
        "decsps": {"cap": lr, "diameter": reached, "scale": 1 / c.gap},
        "adagrad": {"lr": lr, "b0": b0, "largest": largest, "smallest": smallest, "distance": START},
    }
    return _told(rule, c, promises[rule], heights, reached, horizons)


def _told(
    rule: str, c: ProblemConstants, promise: Mapping[str, float], heights: Array, reached: float, horizons: list[int]
) -> dict[str, Any]:
    """min over k < K of the mean of f(x_k) - f^* with its standard error, beside the bound, for each K."""
    means, errors = heights.mean(axis=1), heights.std(axis=1, ddof=1) / heights.shape[1] ** 0.5
    data = {"rule": rule, "constants": dataclasses.asdict(c), "promise": dict(promise), "region": list(REGION)}
    rows = []
    for steps in horizons:
        best = int(np.argmin(means[:steps]))
        found = {"steps": steps, "measured": float(means[best]), "stderr": float(errors[best])}
        made = bound(data, steps)
        rows.append(found | {"bound": made.total, "neighbourhood": made.neighbourhood})
    return data | {"visited": reached, "first": float(means[0]), "rows": rows}


def bound(data: Mapping[str, Any], steps: int, **changed: float) -> Bound:
    """What the theorem of a job promises after some steps; `changed`: constants of the problem that are not its own."""
    c = ProblemConstants(**{**data["constants"], **changed})
    return BOUNDS[data["rule"]](c, steps=steps, **data["promise"])
