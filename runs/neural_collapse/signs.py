"""The theorems' runs on sign rules: NC0 in the unconstrained-features model from W = 0, all in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes import Field, Trace
from probes.digits import CLASSES
from probes.sweep.jobs import JobContext
from runs.neural_collapse.models import set_rate, simplex
from solvers import SignSGD

Vector = NDArray[np.float64]


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
            run = {"classes": K, "last": values[-1], "limit": limit, "error": error}
            run["limit_error"] = abs(values[-1] / limit - 1)
            runs.append(run | {"falls": max(float(-np.diff(values).min() / limit), 0.0)})
    return {"runs": runs}


def sign_coupled(job: JobContext, etas: list[float], decay: float, path: float) -> dict[str, Any]:
    """At fixed step sizes: the entries a (of the diagonal) and -b (beside it) over the steps.

    `decoupled` is the same with the decay beside the sign.
    """
    found: dict[str, Any] = {"runs": [], "decoupled": []}
    with job.trace(etas=etas, decay=decay) as trace:
        for number, eta in enumerate(etas):
            for key, runs in found.items():
                a, b, values = entries(signs([eta] * round(path / eta), decay, CLASSES, decoupled=key == "decoupled"))
                last = values[-len(values) // 10 :]
                run = {"eta": eta, "peak": values.max(), "peak_step": int(values.argmax()), "last": last.max()}
                run["alpha_over_bound"] = float((last**2 / CLASSES).max() / (CLASSES * eta) ** 2)
                runs.append(run | phases(a, b))
                if key == "runs":
                    write(trace, f"eta-{eta:g}", value=values, a=a, b=b)
            job.progress(number + 1, len(etas))
    return found


def sign_decaying(job: JobContext, eta: float, decay: float, path: float, halvings: int, each: int) -> dict[str, Any]:
    """A step size that stays, then halves every `each` steps: how close NC0 and W come to the fixed point."""
    rates = [eta] * round(path / eta) + [eta * 0.5 ** (1 + step / each) for step in range(halvings * each)]
    with job.trace(eta=eta, decay=decay) as trace:
        a, b, values = entries(signs(rates, decay, CLASSES, decoupled=False))
        write(trace, "nc0", value=values, a=a, b=b, rate=np.array([*rates, rates[-1]]))
    return {
        "peak": values.max(),
        "last": values[-1],
        "last_rate": rates[-1],
        "a": a[-1],
        "b": b[-1],
        "fixed": fixed_point(decay),
        "printed": fixed_point(decay, printed=True),
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


def fixed_point(decay: float, K: int = CLASSES, *, printed: bool = False) -> tuple[float, float]:
    """a = (K - 1) psi / lam and b = psi / lam at the logit gap (a + b) / sqrt(K - 1), by bisection.

    `printed`: at the gap (a + b) / (K - 1), as the paper's proof has it.
    """
    divisor = K - 1 if printed else math.sqrt(K - 1)

    def psi(gap: float) -> float:
        return 1 / (K * math.sqrt(K - 1) * (math.exp(gap) + K - 1))

    low, high = 0.0, 700.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if K * psi(middle) / (decay * divisor) > middle else (low, middle)
    return (K - 1) * psi(low) / decay, psi(low) / decay


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
