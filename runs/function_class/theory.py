"""The jobs of `runs.function_class` without networks: the toy examples, half-space learning, the theorems for SGD."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.regularity import (
    ProblemConstants,
    Trajectory,
    alpha_beta,
    margins,
    one_step_decrease,
    sgd_constant,
    sgd_decreasing,
)
from landscape.regularity import examples as problems
from landscape.regularity.examples import FiniteSum, grid
from probes import Field, Trace
from probes.sweep.jobs import Job, JobContext

Array = NDArray[np.float64]
PLANE, SMALLER = (-6.0, 8.0), ((-5.0, 5.0), (-2.0, 3.0))
EXAMPLES: dict[str, Callable[[], FiniteSum]] = {
    "1": problems.unbounded_minimisers,
    "2": problems.saddle,
    "3": problems.local_minimum,
    "6": problems.two_minima,
}
GAPS = {"1": 0.5, "2": 8.0, "3": 1.0, "6": 1.0}
ROW = dict.fromkeys(("inner", "loss", "final_loss", "infimum"), "loss")
ROW |= {"grad_norm": "loss/parameter", "distance": "parameter"}
START, GAP = 3.0, 0.5  # of the two-function problem
HORIZONS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


def plan(quick: bool) -> list[Job]:
    """The jobs; the reduced ones differ in the numbers of points and runs."""
    points = 57 if quick else 281
    jobs = []
    for name, gap in GAPS.items():
        regions = [list(region) for region in (PLANE, *(SMALLER if name == "6" else ()))]
        settings = {"name": name, "gap": gap, "points": points, "regions": regions}
        jobs.append(Job(f"example-{name}", example, settings))
    jobs.append(Job("half-space", half_space, {"steps": 800 if quick else 4000, "paths": 2 if quick else 16}))
    common = {"runs": 100, "horizons": list(HORIZONS[:5])} if quick else {"runs": 2000, "horizons": list(HORIZONS)}
    for rule, part in (("constant", 1.0), ("constant", 0.25), ("constant", 0.0625), ("decreasing", 1.0)):
        jobs.append(Job(f"theorem-{rule}-{part:g}", theorem, {"rule": rule, "part": part} | common))
    return jobs


def example(job: JobContext, name: str, gap: float, points: int, regions: list[list[float]]) -> dict[str, Any]:
    """A toy example on grids of its plane: the frontier at a gap, and the pair that the paper states."""
    problem = EXAMPLES[name]()
    found = []
    with job.trace(example=name, gap=gap, points=points) as trace:
        for number, (low, high) in enumerate(regions):
            t = problem.trajectory(grid(low, high, points))
            record(trace, f"plane-{number}", t, len(problem.terms))
            pair, least = problem.pairs[0], alpha_beta(t, gap)
            row = {"region": [low, high], "beta": least.beta, "vacuous": least.vacuous, "pair": list(pair)}
            stated, without = (float(margins(t, [a], [b])[0, 0]) for a, b in (pair, (gap, 0.0)))
            found.append(row | {"least_margin": stated, "without_beta": without})
            job.progress(number + 1, len(regions))
    return {"example": name, "gap": gap, "points": points, "regions": found}


def half_space(job: JobContext, steps: int, paths: int) -> dict[str, Any]:
    """SGD with batches of one and step 1/4 from random points at distance 4; four paths on each draw of the samples."""
    found = []
    with job.trace(steps=steps, lr=0.25) as trace:
        for seed in range(paths):
            problem = problems.half_space(seed=seed // 4)
            rng = np.random.default_rng((job.seed, seed))
            x, chosen = np.empty((steps + 1, 2)), rng.integers(len(problem.terms), size=steps)
            x[0] = rng.standard_normal(2)
            x[0] *= 4 / np.linalg.norm(x[0])
            for k, i in enumerate(chosen):
                x[k + 1] = x[k] - 0.25 * problem.terms[i](x[k : k + 1])[1][0]
            whole = problem.trajectory(x[:-1], end=x[-1])
            rows = whole.select(chosen * steps + np.arange(steps))
            record(trace, f"seed-{seed}", rows, 1)
            values, gradients = problem.values(x).mean(axis=0), problem.gradients(x[:-1]).mean(axis=0)
            full = Trajectory(
                inner=(gradients * (x[:-1] - x[-1])).sum(axis=1),
                loss=values[:-1],
                final_loss=np.full(steps, values[-1]),
                infimum=np.full(steps, problem.infimum.mean()),
                grad_norm=np.linalg.norm(gradients, axis=1),
                distance=np.linalg.norm(x[:-1] - x[-1], axis=1),
            )
            record(trace, f"seed-{seed}-full", full, 1)
            ends = {"first_loss": float(values[0]), "loss": float(values[-1])}
            found.append({"seed": seed, "samples": len(problem.terms)} | ends)
            job.progress(seed + 1, paths)
    return {"steps": steps, "runs": found}


def theorem(job: JobContext, rule: str, part: float, runs: int, horizons: list[int]) -> dict[str, Any]:
    """SGD on the two-function problem: the one-step inequality at every point, and bound and measured by steps.

    `part` is the step size over the largest that the theorem allows.
    """
    problem = problems.two_functions()
    region = (-10.0, 10.0)
    beta = alpha_beta(problem.trajectory(np.linspace(*region, 200_001)[:, None]), GAP).beta
    c = ProblemConstants(beta + GAP, beta, problem.smoothness, problem.sigma2)
    lr = part * GAP / (2 * c.smoothness)
    rng = np.random.default_rng(job.seed)
    x = np.full((runs, 1), START)
    tightest, means, errors, reached = np.inf, [], [], 0.0
    for k in range(horizons[-1]):
        step = lr / (k + 1) ** 0.5 if rule == "decreasing" else lr
        gradients, height = problem.gradients(x), problem.values(x).mean(axis=0) - problem.minimum
        after = ((x - step * gradients) ** 2).sum(axis=2).mean(axis=0)
        bound = one_step(c, step, x, height)
        tightest = min(tightest, float((bound - after).min()))
        means.append(float(height.mean()))
        errors.append(float(height.std(ddof=1) / runs**0.5))
        reached = max(reached, float(np.abs(x).max()))
        x = x - step * gradients[rng.integers(2, size=runs), np.arange(runs)]
        job.progress(k, horizons[-1])
    promise = sgd_decreasing if rule == "decreasing" else sgd_constant
    least = np.minimum.accumulate(means)
    rows = []
    with job.trace(rule=rule, part=part, runs=runs) as trace:
        names = "measured", "stderr", "bound", "neighbourhood"
        trace.declare("bound", {name: Field((), "float64", "loss", name) for name in names})
        for steps in horizons:
            made = promise(c, lr=lr, distance=START, steps=steps)
            row = {"measured": float(least[steps - 1]), "stderr": errors[int(np.argmin(means[:steps]))]}
            row |= {"bound": made.total, "neighbourhood": made.neighbourhood}
            trace.record("bound", steps, **row)
            rows.append({"steps": steps} | row)
    settings = {"rule": rule, "lr": lr, "constants": dataclasses.asdict(c), "region": list(region)}
    seen = {"visited": reached, "points": runs * horizons[-1], "tightest": tightest, "first": means[0]}
    return settings | seen | {"rows": rows}


def one_step(c: ProblemConstants, lr: float, x: Array, height: Array) -> Array:
    """`one_step_decrease` at many points of the line: it is linear in the squared distance and in the height."""
    origin = one_step_decrease(c, lr=lr, distance=0.0, gap_to_optimum=0.0)
    slope = one_step_decrease(c, lr=lr, distance=0.0, gap_to_optimum=1.0) - origin
    return (x**2).sum(axis=1) + slope * height + origin


def record(trace: Trace, name: str, t: Trajectory, parts: int) -> None:
    """The rows as a FunctionClass probe leaves them: one a step, or those of each function in `parts` long rows."""
    shape: tuple[int | None, ...] = () if parts == 1 else (None,)
    fields = {field: Field(shape, "float64", units) for field, units in ROW.items()}
    trace.declare(name, fields | {"rounding": Field((), "float64", "", "relative rounding of the losses")})
    columns = {field: getattr(t, field) for field in ROW}
    for part in range(len(t) if parts == 1 else parts):
        rows = part if parts == 1 else slice(part * len(t) // parts, (part + 1) * len(t) // parts)
        trace.record(name, part, rounding=t.rounding, **{field: column[rows] for field, column in columns.items()})
