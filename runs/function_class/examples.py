"""The jobs of `runs.function_class` on the paper's examples, each with its pair, and on half-space learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.regularity import Trajectory, alpha_beta, margins
from landscape.regularity import examples as problems
from landscape.regularity.examples import FiniteSum, grid
from landscape.regularity.families import factorization, ridges, saturations, two_layer
from landscape.regularity.measure import Row
from probes.sweep.jobs import Job, JobContext
from runs.function_class.training import declare, write

Array = NDArray[np.float64]
PLANE = (-6.0, 8.0)
BOUND = 5.0  # on norms in Examples 4 and 5
SCALES = (1.0, 5.0, 30.0, 200.0)


def plan(quick: bool) -> list[Job]:
    """The jobs; the reduced ones differ in the numbers of points and paths."""
    jobs = [Job(f"example-{name}", example, {"name": name, "points": 57 if quick else 281}) for name in PLANES]
    counts = {"4": 20 if quick else 400, "5": 2000 if quick else 20_000}
    jobs += [Job(f"example-{name}", example, {"name": name, "points": count}) for name, count in counts.items()]
    jobs += [Job(f"remark-{name}", example, {"name": name, "points": 1000 if quick else 20_000}) for name in REMARK]
    half = {"steps": 800 if quick else 4000, "paths": 4 if quick else 64, "every": 20}
    return jobs + [Job(f"half-space-{loss}", half_space, {"loss": loss} | half) for loss in ("sigmoid", "logistic")]


def _draw(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


def _factorization() -> FiniteSum:
    """6 x 5 of rank 3, factors of rank 2; residuals of 0.4 and either sign, orthogonal to both factors."""
    first, second = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0]), np.array([1.0, 1.0, -1.0, 1.0, 1.0])
    left, right = (
        np.linalg.qr(np.column_stack([side, _draw(len(side), 2)]))[0][:, 1:].T * np.array([[5.0], [4.0]]) ** 0.5
        for side in (first, second)
    )
    return factorization(left, right, 0.4 * np.outer(first, second), bound=BOUND)


def _two_layer() -> FiniteSum:
    """8 points in 3-d with labels at random, two neurons."""
    x = _draw(8, 3)
    return two_layer(x, [1, -1, 1, 1, -1, -1, 1, -1], width=2, decay=0.05, first=BOUND, second=BOUND)


PLANES: dict[str, Callable[[], FiniteSum]] = {
    "1": problems.unbounded_minimisers,
    "2": problems.saddle,
    "3": problems.local_minimum,
    "6": problems.two_minima,
}
REMARK: dict[str, Callable[[], FiniteSum]] = {
    "ridges-2": lambda: ridges([0.0, 1.0], 2),
    "ridges-5": lambda: ridges(_draw(4), 5),
    "saturations-2": problems.two_minima,
    "saturations-3": lambda: saturations(0.5 * _draw(6, 3)),
}
BOUNDED = {"4": _factorization, "5": _two_layer}


def example(job: JobContext, name: str, points: int) -> dict[str, Any]:
    """The least T at the stated pair and at the same gap without beta, and the smallest beta at that gap.

    On a grid of [-6, 8]^2 with `points` a side; for Examples 4 and 5 at so many random points of their bounded sets;
    for Remark 1 at random points of four scales in R^d.
    """
    problem = (PLANES | BOUNDED | REMARK)[name]()
    x = _points(problem, name, points, np.random.default_rng(job.seed))
    t = problem.trajectory(x)
    alpha, beta = _pair(problem, name)
    gap = alpha - beta
    stated, without = (float(margins(t, [a], [b])[0, 0]) for a, b in ((alpha, beta), (gap, 0.0)))
    least = alpha_beta(t, gap)
    found = {"pair": [alpha, beta], "gap": gap, "least_margin": stated, "without_beta": without, "beta": least.beta}
    return found | {"vacuous": least.vacuous, "points": len(x), "farthest": float(np.abs(x).max())}


def _pair(problem: FiniteSum, name: str) -> tuple[float, float]:
    """What the problem states; for Example 6 as a member of Remark 1's family, what is derived here."""
    if name != "saturations-2":
        return problem.pairs[0]
    assert problem.project is not None
    q = problem.values(problem.project(np.zeros((1, 2))))
    alpha = float((1 / q).max())  # f_i = q / (1 + q) at a minimiser, with some q below 1
    return alpha, alpha - 1


def _points(problem: FiniteSum, name: str, count: int, rng: np.random.Generator) -> Array:
    d = problem.dimension
    if name in PLANES:
        return grid(*PLANE, count)
    if name in REMARK:
        return np.concatenate([scale * rng.standard_normal((count // 4, d)) for scale in SCALES])
    if name == "4":  # columns of two entries, no longer than the bound
        return rng.uniform(-0.7 * BOUND, 0.7 * BOUND, (count, d))
    x = rng.standard_normal((count, d))
    for part in (slice(None, -2), slice(-2, None)):  # the two layers
        x[:, part] *= BOUND * rng.uniform(size=(count, 1)) / np.linalg.norm(x[:, part], axis=1, keepdims=True)
    return x


def half_space(job: JobContext, loss: str, steps: int, paths: int, every: int) -> dict[str, Any]:
    """SGD with batches of one and step 1/4 from a random point at distance 4, each path on samples of its own.

    `loss`: the sigmoid of the paper, or the convex logistic loss of the same samples. The rows of the whole loss go to
    the trace every few steps; what is told of them is of all steps.
    """
    found = []
    with job.trace(steps=steps, lr=0.25, loss=loss) as trace:
        declare(trace, [f"seed-{seed}-full" for seed in range(paths)])
        for seed in range(paths):
            problem = problems.half_space(seed=seed) if loss == "sigmoid" else _logistic(seed)
            rows, full = _path(problem, steps, np.random.default_rng((job.seed, seed)))
            for k in range(0, steps, every):
                write(trace, f"seed-{seed}-full", k, _row(full, k), full.rounding)
            found.append({"seed": seed} | _told(rows, full))
            job.progress(seed + 1, paths)
    return {"steps": steps, "runs": found}


def _path(problem: FiniteSum, steps: int, rng: np.random.Generator) -> tuple[Trajectory, Trajectory]:
    """A path of SGD: the rows of the sample of each step, and those of the whole loss."""
    x, chosen = np.empty((steps + 1, 2)), rng.integers(len(problem.terms), size=steps)
    x[0] = rng.standard_normal(2)
    x[0] *= 4 / np.linalg.norm(x[0])
    for k, i in enumerate(chosen):
        x[k + 1] = x[k] - 0.25 * problem.terms[i](x[k : k + 1])[1][0]
    rows = problem.trajectory(x[:-1], end=x[-1]).select(chosen * steps + np.arange(steps))
    values, gradients = problem.values(x).mean(axis=0), problem.gradients(x[:-1]).mean(axis=0)
    full = Trajectory(
        inner=(gradients * (x[:-1] - x[-1])).sum(axis=1),
        loss=values[:-1],
        final_loss=np.full(steps, values[-1]),
        infimum=np.full(steps, problem.infimum.mean()),
        grad_norm=np.linalg.norm(gradients, axis=1),
        distance=np.linalg.norm(x[:-1] - x[-1], axis=1),
    )
    return rows, full


def _told(rows: Trajectory, full: Trajectory) -> dict[str, Any]:
    """beta of the rows; where the whole gradient points away from x_K though the loss is above that of x_K; mu."""
    above = full.drop > 0
    away = above & (full.inner < 0)
    mu = full.grad_norm**2 / (2 * np.maximum(full.drop, 1e-300))
    return {
        "beta": alpha_beta(rows).beta,
        "most": alpha_beta(rows, quantile=0.99).beta,
        "away": int(away.sum()),
        "highest": float(full.drop[away].max(initial=0.0)),
        "mu": float(mu[above].min(initial=np.inf)),
        "first_loss": float(full.loss[0]),
        "loss": float(full.final_loss[0]),
    }


def _row(t: Trajectory, k: int) -> Row:
    return Row(*(float(getattr(t, name)[k]) for name in Row.__dataclass_fields__))


def _logistic(seed: int) -> FiniteSum:
    """log(1 + exp(-margin)) on the samples of `half_space`: convex, and so alpha-beta with beta = 0 at gaps up to 1."""
    made = problems.half_space(seed=seed)
    terms = tuple(partial(_log, direction=term.keywords["direction"]) for term in made.terms)  # type: ignore[attr-defined]
    return FiniteSum("logistic", made.dimension, terms, np.zeros(len(terms)))


def _log(z: Array, direction: Array) -> tuple[Array, Array]:
    margin = z @ direction
    return np.logaddexp(0.0, -margin), -np.exp(-np.logaddexp(0.0, margin))[:, None] * direction
