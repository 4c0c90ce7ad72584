"""The small problems of `runs.ngn`: Rosenbrock's function, x^2 + x^4, regression on diabetes, a random square system.

On Rosenbrock's function the solvers of the repository move; the others, which ask for many steps, for a step size that
falls and for a version that was rejected, have their updates written out below.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.numbers import finite
from probes.sweep.jobs import Job, JobContext
from probes.sweep.solvers import make, step
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
THEOREM = (0.1, 1.0, 10.0, 100.0), (0.5, 1.0, 10.0, 1e3, 1e6), (9 / 25, 0.5, 0.9)  # starts, step sizes, betas

READINGS = ("range", "rows", "columns")  # of "normalised": all entries to [0, 1], rows or columns of length 1
VERSIONS = ("ngn-m", "version-2", "sgd-m")
DIABETES = (1.0, 10.0, 100.0, 1000.0)
DIABETES_STEPS = 10_000

SIZE = 400  # of the square system
SHIFTS = (0.0, 10.0, 20.0, 25.0)  # r in A + r I
LENGTHS = (1000, 4000)
DRAWS = 3  # of A and y
SCALES = {"scaled": SIZE**-0.5, "unscaled": 1.0}  # of A + r I, whose singular values reach 2 sqrt(SIZE) without
SCHEDULES: dict[str, Callable[[int, int], float]] = {  # c_k at step k = 0, 1, ... of K
    "1/sqrt(k)": lambda k, K: (k + 1) ** -0.5,
    "1/sqrt(K)": lambda k, K: K**-0.5,
    "1e-3": lambda k, K: 1e-3,
    "1e-4": lambda k, K: 1e-4,
}


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    short = {"steps": 300 if quick else ROSENBROCK_STEPS}
    jobs = [Job(f"rosenbrock-{name}", rosenbrock, {"solver": name} | short) for name in MOVERS]
    jobs.append(Job("quartic", quartic, {"steps": 2000 if quick else QUARTIC_STEPS}))
    steps = 300 if quick else DIABETES_STEPS
    jobs += [Job(f"diabetes-{reading}", diabetes, {"reading": reading, "steps": steps}) for reading in READINGS]
    lengths = [20, 40] if quick else list(LENGTHS)
    for (name, scale), i in itertools.product(SCALES.items(), range(1 if quick else DRAWS)):
        settings = {"number": i, "scale": scale, "lengths": lengths}
        jobs.append(Job(f"{name}-{i}", schedules, settings, "schedules"))
    return jobs


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
    theorem = {
        name: [
            {"start": x, "lr": lr, "beta": beta, "steps": descent(x, lr, beta, steps, adaptive=way)}
            for x, lr, beta in itertools.product(*THEOREM)
        ]
        for name, way in ways.items()
    }
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
    """A and b of mean_i (a_i x - b_i)^2 / 2: A and b scaled to [0, 1], or rows or columns of length 1, b standardised.

    What a mean is of, and the scale of b, matter to neither NGN's steps nor the share of f that is left.
    """
    from sklearn.datasets import load_diabetes

    A, b = load_diabetes(return_X_y=True)
    if reading == "range":
        A, b = ((t - t.min(axis=0)) / np.ptp(t, axis=0) for t in (A, b))
    else:
        b = (b - b.mean()) / b.std()
    if reading == "rows":
        A = A / np.linalg.norm(A, axis=1, keepdims=True)
    return A * len(b) ** -0.5, b * len(b) ** -0.5


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


# -- a square system -------------------------------------------------------------------------------------------------


def schedules(job: JobContext, number: int, scale: float, lengths: list[int]) -> dict[str, Any]:
    """f over f(0) of NGN-M at the end on ||s (A + r I) x - y||^2 / 2, A and y standard normal, by r, K and c_k.

    With it how much is left after a tenth of the steps, and the condition number of A + r I.
    """
    rng = np.random.default_rng(job.seed + number)
    A, y = rng.standard_normal((SIZE, SIZE)), rng.standard_normal(SIZE)
    found = []
    for r in SHIFTS:
        M = scale * (A + r * np.eye(SIZE))
        for K in lengths:
            runs = {name: residuals(M, y, [c(k, K) for k in range(K)]) for name, c in SCHEDULES.items()}
            left = {name: {"tenth": float(f[K // 10]), "end": float(f[-1])} for name, f in runs.items()}
            found.append({"shift": r, "condition": float(np.linalg.cond(M)), "steps": K, "left": left})
        job.progress(len(found), len(SHIFTS) * len(lengths))
    return {"runs": found}


def residuals(M: Array, y: Array, cs: Sequence[float]) -> Array:
    """f over f(0) after 0, 1, ... steps of NGN-M with these c_k from 0."""
    x = np.zeros(len(y))
    before, losses = x, []
    for c in [*cs, 0.0]:
        residual = M @ x - y
        f, g = float(residual @ residual) / 2, M.T @ residual
        losses.append(f)
        down = 2 * f + c * float(g @ g)
        rate = 2 * c * f / down if down else 0.0
        x, before = x - (1 - MOMENTUM) * rate * g + MOMENTUM * (x - before), x
    return np.array(losses) / losses[0]
