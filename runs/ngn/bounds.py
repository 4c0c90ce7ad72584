"""What theorems promise of NGN beside what is measured: on convex sums, on two functions that are not, at any c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from landscape.regularity import Bound, ProblemConstants, alpha_beta, ngn_constant, ngn_decreasing, sps_max
from landscape.regularity.examples import FiniteSum, two_functions
from probes.numbers import finite
from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.ngn import convex
from runs.ngn.convex import Array, Sum

RUNS = 10
CONSTANT = (1e-3, 1e-2, 0.1, 1.0)  # c of Theorem 4.3
LAM = 9.0  # momentum 0.9, in Theorem D.2
DECREASING = (0.1, 0.7)  # c L of Theorem D.5

# solver -> step sizes on the two functions
NOISY = {"sps": (0.03, 0.3), "ngn": (0.01, 0.1, 1.0), "ngn-sqrt": (0.1, 1.0)}
SCALE = 2.0  # of SPS_max, above 1 / (2 (alpha - beta)) for the gaps below
GAPS = {"sps": 0.5, "ngn": 1.0, "ngn-sqrt": 1.0}
FAR = 4.0  # start

ANY = tuple(10.0**k for k in range(-3, 7))
BETA = 0.9
CONVEX: dict[str, Callable[[], Sum]] = {"least squares": convex.least_squares, "logistic regression": convex.logistic}


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    long, short = (3000, 500) if quick else (30_000, 3000)
    jobs = [Job(f"theorem-{name}", run, {"steps": long}) for name, run in THEOREMS.items()]
    noisy = {"steps": 20_000, "runs": 100}
    jobs += [Job(f"noisy-{name}", two_noisy, {"solver": name} | noisy) for name in NOISY]
    return [*jobs, Job("any-step", any_step, {"steps": short})]


# -- Theorems 4.3, D.2, D.5 ------------------------------------------------------------------------------------------


def theorem_constant(job: JobContext, steps: int) -> dict[str, Any]:
    """Theorem 4.3 on least squares: the mean gap and its bound for each c, with the largest lam that is allowed."""
    problem = convex.least_squares()
    distance2 = float((problem.minimiser**2).sum())
    found = {}
    for i, c in enumerate(CONSTANT):
        lam = float(convex.largest_lam(c * problem.smoothness))
        gaps = convex.descend(problem, np.full(steps, c), np.full(steps, lam), RUNS, job.seed)
        bound = convex.constant(problem, c, distance2, steps)
        found[f"{c:g}"] = _row(float(gaps.mean()), bound) | {"momentum": lam / (1 + lam)}
        job.progress(i + 1, len(CONSTANT))
    return found


def theorem_interpolated(job: JobContext, steps: int) -> dict[str, Any]:
    """Theorem D.2 with momentum 0.9 on equations that have a solution, after 100, 1000, ... steps."""
    problem = convex.least_squares(noise=0.0, offset=0.0)
    distance2, c = float((problem.minimiser**2).sum()), 1 / (4 * LAM * problem.smoothness)
    gaps = convex.descend(problem, np.full(steps, c), np.full(steps, LAM), RUNS, job.seed)
    found, count = {}, 100
    while count <= steps:
        bound = convex.interpolated(problem, c, LAM, distance2, float(gaps[0]), count)
        found[str(count)] = _row(float(gaps[:count].mean()), bound) | {"steps": count}
        count *= 10
    return found


def theorem_decreasing(job: JobContext, steps: int) -> dict[str, Any]:
    """Theorem D.5 on least squares, by c L: the mean gap with the weights rho_k."""
    problem = convex.least_squares()
    L, distance2 = problem.smoothness, float((problem.minimiser**2).sum())
    found = {}
    for share in DECREASING:
        cs = share / L / np.sqrt(np.arange(steps) + 1)
        lams = convex.largest_lam(cs * L)
        lams[0] = 0.0
        weights = cs / convex.growth(cs * L)
        gaps = convex.descend(problem, cs, lams, RUNS, job.seed)
        bound = convex.decreasing(problem, share / L, distance2, steps)
        found[f"{share:g}"] = _row(float((weights * gaps).sum() / weights.sum()), bound) | {"steps": steps}
    return found


THEOREMS = {"4.3": theorem_constant, "D.2": theorem_interpolated, "D.5": theorem_decreasing}


def _row(measured: float, bound: Bound) -> dict[str, float]:
    return {"measured": measured, "bound": bound.total} | asdict(bound)


# -- two functions that are not convex -------------------------------------------------------------------------------


def two_noisy(job: JobContext, solver: str, steps: int, runs: int) -> dict[str, Any]:
    """f(x_k) - f^* (mean over runs) on f_pm = (x -+ 1)^2 / 2 + (1 - cos 2x) / 2, one of both drawn at each step.

    `measured` is the smallest over k of that mean, which the theorems of arXiv 2410.12455 bound; `late` the mean over
    the last tenth.
    """
    toy = two_functions()
    c, found = constants(toy, GAPS[solver]), {}
    with job.trace(solver=solver, steps=steps, runs=runs) as trace:
        for i, lr in enumerate(NOISY[solver]):
            trace.declare(f"lr-{lr:g}", {"excess": Field((), "float64", "loss", "mean over the runs of f - f^*")})
            path = noisy_paths(toy, solver, lr, steps, runs, job.seed)
            excess = toy.values(path.reshape(-1, 1)).mean(axis=0).reshape(path.shape).mean(axis=1) - toy.minimum
            for k in range(0, steps, max(steps // 1000, 1)):
                trace.record(f"lr-{lr:g}", k, excess=float(excess[k]))
            bound = bounds(c, solver, lr, steps)
            late = float(excess[-max(steps // 10, 1) :].mean())
            found[f"{lr:g}"] = _row(float(excess[:-1].min()), bound) | {"late": late, "steps": steps}
            job.progress(i + 1, len(NOISY[solver]))
    return {"solver": solver, "alpha": c.alpha, "beta": c.beta, "runs": found}


def constants(toy: FiniteSum, gap: float) -> ProblemConstants:
    """Of the two functions on [-20, 20], beyond which no run gets."""
    line = np.linspace(-20, 20, 40_001)[:, None]
    beta = alpha_beta(toy.trajectory(line), gap).beta * (1 + 1e-4)  # the grid may miss the worst point
    return ProblemConstants(beta + gap, beta, toy.smoothness, toy.sigma2, float(toy.infimum.mean()))


def bounds(c: ProblemConstants, solver: str, lr: float, steps: int) -> Bound:
    """The theorem's bound on the smallest mean of f - f^* within the steps."""
    if solver == "sps":
        return sps_max(c, scale=SCALE, cap=lr, distance=FAR, steps=steps)
    rule = ngn_decreasing if solver == "ngn-sqrt" else ngn_constant
    return rule(c, lr=lr, distance=FAR, steps=steps)


def noisy_paths(toy: FiniteSum, solver: str, lr: float, steps: int, runs: int, seed: int) -> Array:
    """`(steps + 1, runs)`: x_0 = 4 and what follows, from one seed."""
    rng, path = np.random.default_rng(seed), np.empty((steps + 1, runs))
    path[0] = FAR
    for k in range(steps):
        x, (first, second) = path[k], toy.terms
        heads = rng.integers(2, size=runs).astype(bool)
        (f1, g1), (f2, g2) = first(x[:, None]), second(x[:, None])
        f, g = np.where(heads, f1, f2), np.where(heads, g1[:, 0], g2[:, 0])
        if solver == "sps":
            square = np.maximum(g * g, 1e-300)
            rate = np.minimum((f - toy.infimum[0]) / (SCALE * square), lr)
        else:
            c = lr / np.sqrt(k + 1) if solver == "ngn-sqrt" else lr
            rate = 2 * c * f / (2 * f + c * g * g)
        path[k + 1] = x - rate * g
    return path


# -- any step size ---------------------------------------------------------------------------------------------------


def any_step(job: JobContext, steps: int) -> dict[str, Any]:
    """The largest f over the start's, at each c of `ANY`, of NGN, NGN-M and SGD with and without momentum."""
    found: dict[str, Any] = {}
    for name, make in CONVEX.items():
        problem = make()
        found[name] = {"smoothness": problem.smoothness, "largest": _largest(problem, steps, job.seed)}
        job.progress(len(found), len(CONVEX))
    return found


def _largest(problem: Sum, steps: int, seed: int) -> dict[str, dict[str, float | None]]:
    ways = {"ngn": (True, 0.0), "ngn-m": (True, BETA), "sgd": (False, 0.0), "sgd-m": (False, BETA)}
    return {
        way: {f"{c:g}": finite(largest(problem, c, beta, steps, seed, adaptive=adaptive)) for c in ANY}
        for way, (adaptive, beta) in ways.items()
    }


def largest(problem: Sum, c: float, beta: float, steps: int, seed: int, *, adaptive: bool, runs: int = 5) -> float:
    """The largest f of all runs from 0, over f(0); infinite beyond 1e30 times that."""
    rng = np.random.default_rng(seed)
    n, d = problem.rows.shape
    x = np.zeros((runs, d))
    before, start, most = x, float(problem.value(x)[0]), 1.0
    for _ in range(steps):
        chosen = rng.integers(n, size=runs)
        step = convex.ngn_step(problem, x, chosen, c) if adaptive else c * problem.terms(x, chosen)[1]
        x, before = x - (1 - beta) * step + beta * (x - before), x
        most = max(most, float(problem.value(x).max()) / start)
        if not most < 1e30:
            return float("inf")
    return most
