"""The theorems' runs of `runs.neural_collapse`: NC0 of every step beside what the theorem says, all in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscape.collapse import predict_nc0
from probes import Field, Trace
from probes.digits import CLASSES, build_network, digits
from runs.engine.jobs import Job, JobContext
from runs.neural_collapse.models import NETWORKS, Unconstrained, made, set_rate, simplex, step_schedule, weight_of_head
from runs.shared.training import batches
from solvers import SignSGD

Vector = NDArray[np.float64]
MOMENTA = (0.0, 0.5, 0.9)
LR, DECAY = 0.02, 0.02  # momentum 0.9 is still on the real side of the recursion's roots
HEAT_MAP = ((0.0, 1.48), (0.9, 0.31))  # momentum, the paper's NC0 at decay 0.005
VANISHED = 1e-6  # of the start; beyond the inverse of it NC0 has diverged


def plan(quick: bool) -> list[Job]:
    """The jobs; a reduced run takes fewer steps on the network and fewer step sizes of the sign rule."""
    steps = 200 if quick else 1000
    etas = [0.02, 0.01] if quick else [0.01, 0.005, 0.0025, 0.00125]
    return [
        Job("theory-model", unconstrained, {"steps": 1000}),
        Job("theory-network", network, {"steps": steps, "schedule": "constant"}, "network"),
        Job("theory-schedule", network, {"steps": steps, "schedule": "steps"}, "network"),
        Job("theory-stability", stability, {"factors": [0.99, 1.01], "steps": 5000}),
        Job("theory-sign-decoupled", sign_decoupled, {"classes": [3, 4, 10], "eta": 0.4, "decay": 0.05, "steps": 2000}),
        Job("theory-sign-coupled", sign_coupled, {"etas": etas, "decay": 1e-3, "path": 15.0}),
        Job(
            "theory-sign-decaying",
            sign_decaying,
            {
                "eta": 0.02 if quick else 0.01,
                "decay": 1e-3,
                "path": 20.0,
                "halvings": 30,
                "each": 100 if quick else 200,
            },
        ),
        Job("theory-heat-map", heat_map, {"decay": 0.005}),
    ]


# -- SGD -----------------------------------------------------------------------------------------------------


def unconstrained(job: JobContext, steps: int) -> dict[str, Any]:
    """Both decays of SGD on the unconstrained-features model, against the theorems' own formulas."""
    labels = torch.arange(50) % CLASSES
    runs = []
    with job.trace(lr=LR, decay=DECAY) as trace:
        for rule, momentum, name in cases():
            torch.manual_seed(job.seed)
            model = Unconstrained(CLASSES, 16, len(labels))
            losses = ((lambda m=model: nn.functional.cross_entropy(m(), labels)) for _ in range(steps))
            found = followed(model.weight, model, rule, momentum, [LR] * steps, losses, job)
            runs.append(told(trace, name, found, formula(rule, momentum, steps) * found[0]))
    return {"steps": steps, "runs": runs}


def network(job: JobContext, steps: int, schedule: str) -> dict[str, Any]:
    """Both on an MLP on mini-batches of digits; with a schedule against `predict_nc0`."""
    x, y = digits().train
    rates = [LR] * steps if schedule == "constant" else step_schedule(5 * LR, steps)
    runs = []
    with job.trace(lr=rates[0], decay=DECAY, schedule=schedule) as trace:
        for rule, momentum, name in cases():
            model = build_network(NETWORKS["mlp"], job.seed).double()
            losses = (
                (lambda m=model, a=a, b=b: nn.functional.cross_entropy(m(a), b))
                for a, b in batches(x.double(), y, 32, steps, job.seed)
            )
            found = followed(weight_of_head(model), model, rule, momentum, rates, losses, job)
            if schedule == "constant":
                expected = formula(rule, momentum, steps) * found[0]
            else:
                kind: Any = rule.lower()
                expected = predict_nc0(kind, rates, weight_decay=DECAY, momentum=momentum, nc0_initial=float(found[0]))
            runs.append(told(trace, name, found, expected))
    return {"steps": steps, "runs": runs}


def stability(job: JobContext, factors: list[float], steps: int) -> dict[str, Any]:
    """Decays right below and right above the bounds, 2 (1 + beta) coupled and 2 decoupled, with a step size of 1.

    Features are fixed: trained at such a step size they would diverge by themselves.
    """
    labels = torch.arange(8) % 4
    runs = []
    with job.trace(factors=factors) as trace:
        for rule, momentum, name in cases():
            bound = 2 * (1 + momentum) if rule == "SGD" else 2.0
            for factor in factors:
                torch.manual_seed(job.seed)
                model = Unconstrained(4, 4, len(labels))
                model.features.requires_grad_(False)
                optimizer = made(rule, model.parameters(), 1.0, momentum, factor * bound)
                values = [nc0(model.weight)]
                while len(values) <= steps and VANISHED < values[-1] / values[0] < 1 / VANISHED:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(), labels).backward()
                    optimizer.step()
                    values.append(nc0(model.weight))
                ratio = values[-1] / values[0]
                vanished, diverged = ratio <= VANISHED, ratio >= 1 / VANISHED
                write(trace, f"{name}-{factor:g}", value=np.array(values))
                runs.append(
                    {
                        "name": name,
                        "factor": factor,
                        "steps": len(values) - 1,
                        "vanished": vanished,
                        "diverged": diverged,
                    }
                )
    return {"runs": runs}


def heat_map(job: JobContext, decay: float) -> dict[str, Any]:
    """The paper's cells: SGD with lr 1e-3, 200 epochs of 469 steps, tenths at epochs 66 and 133, NC0 1.75 before."""
    rates = np.repeat([1e-3 * 0.1 ** ((e >= 66) + (e >= 133)) for e in range(200)], 469)
    values = [
        float(predict_nc0("sgd", rates, weight_decay=decay, momentum=momentum, nc0_initial=1.75)[-1])
        for momentum, _ in HEAT_MAP
    ]
    return {"momenta": [m for m, _ in HEAT_MAP], "paper": [p for _, p in HEAT_MAP], "values": values}


def cases() -> list[tuple[str, float, str]]:
    """(optimizer, momentum, name) of SGD's theorems."""
    return [(rule, momentum, f"{rule}-{momentum:g}") for rule in ("SGDW", "SGD") for momentum in MOMENTA]


def formula(rule: str, momentum: float, steps: int) -> Vector:
    """NC0 over its start at a constant rate: (1 - eta lam)^t, or c+ = (1 + beta - eta lam) c - beta c-."""
    shrink = 1 - LR * DECAY
    if rule == "SGDW":
        return shrink ** np.arange(steps + 1.0)
    c = [1.0, shrink]
    while len(c) <= steps:
        c.append((momentum + shrink) * c[-1] - momentum * c[-2])
    return np.abs(np.array(c))


def followed(
    weight: Tensor,
    model: nn.Module,
    rule: str,
    momentum: float,
    rates: Sequence[float],
    losses: Iterator[Callable[[], Tensor]],
    job: JobContext,
) -> Vector:
    """NC0 before training and after each step."""
    optimizer = made(rule, model.parameters(), rates[0], momentum, DECAY)
    values = [nc0(weight)]
    for step, (rate, loss) in enumerate(zip(rates, losses, strict=True)):
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        values.append(nc0(weight))
        job.progress(step, len(rates))
    return np.array(values)


def told(trace: Trace, name: str, found: Vector, expected: Vector) -> dict[str, Any]:
    """The largest relative error of a run, which is written to the trace."""
    write(trace, name, value=found, expected=expected)
    return {"name": name, "error": float(np.abs(found / expected - 1).max()), "first": found[0], "last": found[-1]}


# -- signs ---------------------------------------------------------------------------------------------------


def sign_decoupled(job: JobContext, classes: list[int], eta: float, decay: float, steps: int) -> dict[str, Any]:
    """From W = 0 with features at the simplex, one sample a class: NC0 against its closed form and its limit."""
    runs = []
    with job.trace(eta=eta, decay=decay) as trace:
        for K in classes:
            values = np.array([nc0(W) for W in signs([eta] * steps, decay, K, decoupled=True)])
            limit = math.sqrt(K) * (K - 2) / decay
            expected = limit * (1 - (1 - eta * decay) ** np.arange(steps + 1.0))
            write(trace, f"classes-{K}", value=values, expected=expected)
            error = float(np.abs(values[1:] / expected[1:] - 1).max())
            falls = float(-np.diff(values).min() / limit)
            runs.append(
                {
                    "classes": K,
                    "last": values[-1],
                    "limit": limit,
                    "error": error,
                    "limit_error": abs(values[-1] / limit - 1),
                    "falls": max(falls, 0.0),
                }
            )
    return {"runs": runs}


def sign_coupled(job: JobContext, etas: list[float], decay: float, path: float) -> dict[str, Any]:
    """At fixed step sizes: the entries a (of the diagonal) and -b (beside it) over the steps."""
    runs = []
    with job.trace(etas=etas, decay=decay) as trace:
        for number, eta in enumerate(etas):
            a, b, values = entries(signs([eta] * round(path / eta), decay, CLASSES, decoupled=False))
            write(trace, f"eta-{eta:g}", value=values, a=a, b=b)
            last = values[-len(values) // 10 :]
            runs.append(
                {
                    "eta": eta,
                    "peak": values.max(),
                    "peak_step": int(values.argmax()),
                    "last": last.max(),
                    "alpha_over_bound": float((last**2 / CLASSES).max() / (CLASSES * eta) ** 2),
                }
                | phases(a, b)
            )
            job.progress(number + 1, len(etas))
    return {"runs": runs}


def sign_decaying(job: JobContext, eta: float, decay: float, path: float, halvings: int, each: int) -> dict[str, Any]:
    """A step size that stays, then halves every `each` steps: how close NC0 and W come to the fixed point."""
    rates = [eta] * round(path / eta) + [eta * 0.5 ** (1 + step / each) for step in range(halvings * each)]
    with job.trace(eta=eta, decay=decay) as trace:
        a, b, values = entries(signs(rates, decay, CLASSES, decoupled=False))
        write(trace, "nc0", value=values, a=a, b=b, rate=np.array([*rates, rates[-1]]))
    fixed = fixed_point(decay)
    return {
        "peak": values.max(),
        "last": values[-1],
        "last_rate": rates[-1],
        "a": a[-1],
        "b": b[-1],
        "fixed": fixed,
        "error": max(abs(found / point - 1) for found, point in zip((a[-1], b[-1]), fixed, strict=True)),
    }


def signs(rates: Sequence[float], decay: float, K: int, *, decoupled: bool) -> Iterator[Tensor]:
    """W before the first step and after each, by `SignSGD` on gradients of autograd."""
    features, labels = simplex(K), torch.arange(K)
    W = torch.zeros(K, K, dtype=torch.float64, requires_grad=True)
    optimizer = SignSGD([W], rates[0], weight_decay=decay, decoupled=decoupled)
    yield W.detach()
    for rate in rates:
        set_rate(optimizer, rate)
        optimizer.step(lambda: nn.functional.cross_entropy(features @ W.T, labels))
        yield W.detach()


def entries(weights: Iterator[Tensor]) -> tuple[Vector, Vector, Vector]:
    """a = mean of the diagonal, b = minus the mean beside it, and NC0."""
    rows = []
    for W in weights:
        diagonal = float(W.diagonal().sum())
        beside = float(W.sum()) - diagonal
        rows.append((diagonal / len(W), -beside / (len(W) * (len(W) - 1)), nc0(W)))
    a, b, values = np.array(rows).T
    return a, b, values


def phases(a: Vector, b: Vector) -> dict[str, Any]:
    """When b first falls, when a first does, and how often b turns between."""
    first_b, first_a = first_fall(b), first_fall(a)
    between = np.sign(np.diff(b[first_b:first_a])) if first_b < first_a else np.zeros(0)
    return {"first_b": first_b, "first_a": first_a, "steps": len(a) - 1, "turns": int((np.diff(between) != 0).sum())}


def first_fall(values: Vector) -> int:
    """The first step after which a value is lower, else the number of steps."""
    falls = np.flatnonzero(np.diff(values) < 0)
    return int(falls[0]) if len(falls) else len(values) - 1


def fixed_point(decay: float, K: int = CLASSES) -> tuple[float, float]:
    """a = (K - 1) psi / lam and b = psi / lam at the gap g = (a + b) / sqrt(K - 1), by bisection."""
    root = math.sqrt(K - 1)

    def psi(gap: float) -> float:
        return 1 / (K * root * (math.exp(gap) + K - 1))

    low, high = 0.0, 700.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if K * psi(middle) / (decay * root) > middle else (low, middle)
    return (K - 1) * psi(low) / decay, psi(low) / decay


# -- what they share -----------------------------------------------------------------------------------------


def nc0(weight: Tensor) -> float:
    """||W^T 1||."""
    return float(torch.linalg.vector_norm(weight.detach().sum(0)))


def write(trace: Trace, name: str, **columns: Vector) -> None:
    """Columns of one length, a row for each step."""
    about = {
        "value": "||W^T 1||",
        "expected": "||W^T 1|| of the theorem",
        "a": "entry of W on the diagonal",
        "b": "minus the entry of W beside it",
        "rate": "learning rate",
    }
    trace.declare(name, {key: Field((), "float64", "parameter", about[key]) for key in columns})
    for step, row in enumerate(zip(*columns.values(), strict=True)):
        trace.record(name, step, **dict(zip(columns, row, strict=True)))
