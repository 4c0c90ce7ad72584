"""The small problems of `runs.ngn`: Rosenbrock's function, x^2 + x^4, regression on diabetes, two noisy functions.

On Rosenbrock's function and the two functions the solvers of the repository move; the one-dimensional problem and the
regression, which ask for many steps and for a version that was rejected, have their updates written out below.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.regularity import Bound, ProblemConstants, alpha_beta, ngn_constant, ngn_decreasing, sps_max
from landscape.regularity.examples import FiniteSum, two_functions
from probes.numbers import finite
from probes.sweep.jobs import Job, JobContext
from probes.sweep.solvers import make, step
from probes.sweep.training import factor
from probes.trace.layout import Field
from runs.sweep import solvers

Array = NDArray[np.float64]

MOMENTUM = 0.9
ROSENBROCK = tuple(10.0**k for k in range(-3, 3))
SOLVED, LOST = 1e-15, 1e10  # losses at which a run ends
ROSENBROCK_STEPS, QUARTIC_STEPS = 50_000, 100_000
MOVERS = {  # solver, and what the step size is multiplied by
    "ngn-m": ("ngn-m", 1.0),
    "sgd-m": ("torch.optim:SGD:momentum=0.9", 1 - MOMENTUM),
    "sgd-m-torch": ("sgd-m", 1.0),  # dampening 0.9 from the second step on: torch takes the first one whole
    "sgd-m-undamped": ("torch.optim:SGD:momentum=0.9", 1.0),
}

QUARTIC = tuple(10.0**k for k in range(-4, 5))
STARTS = (1.0, 2.0, 5.0, 10.0, 20.0)
THEOREM = (0.1, 1.0, 10.0, 100.0), (0.5, 1.0, 10.0, 1e3, 1e4), (9 / 25, 0.5, 0.9)  # starts, step sizes, betas

READINGS = ("rows-sum", "rows-mean", "columns-sum", "columns-mean")  # of "normalised"
VERSIONS = ("ngn-m", "version-2", "sgd-m")
DIABETES = (1.0, 10.0, 100.0, 1000.0)
DIABETES_STEPS = 10_000

# solver -> (options, schedule, step sizes) on the two functions
NOISY: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "sps": ("sps:c=2.0,lower_bound=", "constant", (0.03, 0.3)),
    "ngn": ("ngn", "constant", (0.01, 0.1, 1.0)),
    "ngn-sqrt": ("ngn", "sqrt", (0.1, 1.0)),
}
SCALE = 2.0  # of SPS_max, above 1 / (2 (alpha - beta)) for the gaps below
GAPS = {"sps": 0.5, "ngn": 1.0, "ngn-sqrt": 1.0}
FAR = 4.0  # start


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    short = {"steps": 300 if quick else ROSENBROCK_STEPS}
    jobs = [Job(f"rosenbrock-{name}", rosenbrock, {"solver": name} | short) for name in MOVERS]
    jobs.append(Job("quartic", quartic, {"steps": 2000 if quick else QUARTIC_STEPS}))
    steps = 300 if quick else DIABETES_STEPS
    jobs += [Job(f"diabetes-{reading}", diabetes, {"reading": reading, "steps": steps}) for reading in READINGS]
    noisy: dict[str, Any] = {"steps": 50, "runs": 3} if quick else {"steps": 600, "runs": 10}
    return jobs + [Job(f"noisy-{name}", two_noisy, {"solver": name} | noisy, "noisy") for name in NOISY]


# -- Rosenbrock ------------------------------------------------------------------------------------------------------


def rosenbrock(job: JobContext, solver: str, steps: int) -> dict[str, Any]:
    """Steps to 1e-15 from (-1.2, 1) at each step size; None where they were not enough, -1 where f passed 1e10."""
    found: dict[str, Any] = {}
    spec, scale = MOVERS[solver]
    with job.trace(solver=solver, steps=steps) as trace:
        for i, lr in enumerate(ROSENBROCK):
            name = f"lr-{lr:g}"
            trace.declare(name, {"loss": Field((), "float64", "loss", "f")})
            z = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
            optimizer = make(solvers.spec(spec), [z], lr * scale)
            found[f"{lr:g}"] = None
            for k in range(steps + 1):
                f = step(optimizer, partial(valley, z))
                ended = f < SOLVED or not f < LOST
                if k % 20 == 0 or ended:
                    trace.record(name, k, loss=f)
                    job.progress(i * steps + k, len(ROSENBROCK) * steps)
                if ended:
                    found[f"{lr:g}"] = k if f < SOLVED else -1
                    break
    return {"solver": solver, "steps": found}


def valley(z: Tensor) -> Tensor:
    """Rosenbrock's function."""
    x, y = z.unbind()
    return (x - 1) ** 2 + 100 * (y - x * x) ** 2


# -- x^2 + x^4 -------------------------------------------------------------------------------------------------------


def quartic(job: JobContext, steps: int) -> dict[str, Any]:
    """Steps to f < 1e-15 for f = x^2 + x^4: of both solvers from several starts, and of Theorem E.5's settings."""

    def by_step_size(x: float, *, adaptive: bool) -> dict[str, int | None]:
        return {f"{lr:g}": descent(x, lr, MOMENTUM, steps, adaptive=adaptive) for lr in QUARTIC}

    ways = {"gdm": False, "ngn-m": True}
    counts = {f"{x:g}": {name: by_step_size(x, adaptive=way) for name, way in ways.items()} for x in STARTS}
    theorem = [
        {"start": x, "lr": lr, "beta": beta, "steps": descent(x, lr, beta, steps, adaptive=True)}
        for x, lr, beta in itertools.product(*THEOREM)
    ]
    return {"counts": counts, "theorem": theorem}


def descent(x: float, lr: float, beta: float, steps: int, *, adaptive: bool) -> int | None:
    """Steps that NGN-M (`adaptive`) or damped heavy ball takes; None where `steps` are too few, -1 beyond 1e10."""
    before = x
    for k in range(steps + 1):
        f = x * x + x**4
        if f < SOLVED:
            return k
        if not f < LOST:
            return -1
        g = 2 * x + 4 * x**3
        rate = lr / (1 + lr * g * g / (2 * f)) if adaptive else lr
        x, before = x - (1 - beta) * rate * g + beta * (x - before), x
    return None


# -- diabetes --------------------------------------------------------------------------------------------------------


def regression(reading: str) -> tuple[Array, Array]:
    """A and b of ||A x - b||^2 / 2: rows or columns of unit length, the target standardised; "mean" over sqrt(n)."""
    from sklearn.datasets import load_diabetes

    A, y = load_diabetes(return_X_y=True)
    b = (y - y.mean()) / y.std()
    if reading.startswith("rows"):
        A = A / np.linalg.norm(A, axis=1, keepdims=True)
    scale = len(b) ** -0.5 if reading.endswith("mean") else 1.0
    return scale * A, scale * b


def diabetes(job: JobContext, reading: str, steps: int) -> dict[str, Any]:
    """(f - f^*) / (f(0) - f^*) of NGN-M, of its rejected version 2, and of damped heavy ball at each step size."""
    A, b = regression(reading)
    end = A @ np.linalg.lstsq(A, b, rcond=None)[0] - b
    least, most = float(end @ end) / 2, float(b @ b) / 2
    found: dict[str, dict[str, Any]] = {}
    with job.trace(reading=reading, steps=steps) as trace:
        for version, lr in itertools.product(VERSIONS, DIABETES):
            name = f"{version}-{lr:g}"
            trace.declare(name, {"excess": Field((), "float64", "", "(f - f^*) / (f(0) - f^*)")})
            excess = (heavy_ball(A, b, lr, steps, version) - least) / (most - least)
            for k in range(0, len(excess), 10):
                trace.record(name, k, excess=float(excess[k]))
            reached = np.flatnonzero(excess <= 1e-2)
            row = {"largest": finite(float(excess.max())), "last": finite(float(excess[-1]))}
            found.setdefault(version, {})[f"{lr:g}"] = row | {"to_1e-2": int(reached[0]) if len(reached) else None}
    L = float(np.linalg.norm(A, 2)) ** 2
    return {"smoothness": L, "floor": least / most, "runs": found}


def heavy_ball(A: Array, b: Array, lr: float, steps: int, version: str) -> Array:
    """f after 0, 1, ... steps from 0, up to the first that is no number below 1e30.

    "ngn-m" takes the norm of the gradient into its step, "version-2" that of a running mean of gradients, "sgd-m" none.
    """
    x = np.zeros(A.shape[1])
    before, mean = x, np.zeros_like(x)
    losses: list[float] = []
    for _ in range(steps + 1):
        residual = A @ x - b
        f, g = float(residual @ residual) / 2, A.T @ residual
        if not f < 1e30:
            return np.array([*losses, math.inf])
        losses.append(f)
        mean = MOMENTUM * mean + (1 - MOMENTUM) * g
        norm = {"ngn-m": float(g @ g), "version-2": float(mean @ mean), "sgd-m": 0.0}[version]
        rate = lr / (1 + lr * norm / (2 * f))
        x, before = x - (1 - MOMENTUM) * rate * g + MOMENTUM * (x - before), x
    return np.array(losses)


# -- two noisy functions ---------------------------------------------------------------------------------------------


def two_noisy(job: JobContext, solver: str, steps: int, runs: int) -> dict[str, Any]:
    """f(x_k) - f^* (mean over runs) on f_pm = (x -+ 1)^2 / 2 + (1 - cos 2x) / 2, one of both drawn at each step.

    `least` is the smallest over k of that mean, which the theorems of arXiv 2410.12455 bound; `late` the mean over the
    last tenth.
    """
    toy = two_functions()
    spec, schedule, lrs = NOISY[solver]
    spec += f"{float(toy.infimum[0])!r}" if spec.endswith("=") else ""
    c = constants(toy, GAPS[solver])
    found: dict[str, Any] = {}
    with job.trace(solver=solver, steps=steps, runs=runs) as trace:
        for lr in lrs:
            trace.declare(f"lr-{lr:g}", {"excess": Field((), "float64", "loss", "mean over the runs of f - f^*")})
            excess = np.zeros(steps + 1)
            for run in range(runs):
                path = noisy_path(spec, lr, schedule, steps, job.seed + run)
                excess += (toy.values(path[:, None]).mean(axis=0) - toy.minimum) / runs
                job.progress(run + 1, runs)
            for k, value in enumerate(excess):
                trace.record(f"lr-{lr:g}", k, excess=float(value))
            bound = bounds(c, solver, lr, steps)
            row = {"least": float(excess[:-1].min()), "late": float(excess[-max(steps // 10, 1) :].mean())}
            found[f"{lr:g}"] = row | {"bound": bound.total, "neighbourhood": bound.neighbourhood}
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


def noisy_path(spec: str, lr: float, schedule: str, steps: int, seed: int) -> Array:
    """`(steps + 1,)`: x_0 = 4 and what follows."""
    x = torch.tensor([FAR], dtype=torch.float64, requires_grad=True)
    optimizer = make(solvers.spec(spec), [x], lr)
    centres = 2.0 * np.random.default_rng(seed).integers(2, size=steps) - 1
    path = [FAR]
    for k, centre in enumerate(centres):
        optimizer.param_groups[0]["lr"] = lr * factor(schedule, k, steps)
        step(optimizer, partial(branch, x, float(centre)))
        path.append(float(x.detach()))
    return np.array(path)


def branch(x: Tensor, centre: float) -> Tensor:
    """One of the two functions."""
    return ((x - centre) ** 2 / 2 + (1 - torch.cos(2 * x)) / 2).sum()
