"""The theorems' runs on SGD, and the plan of all: NC0 of every step beside what the theorem says, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.collapse import predict_nc0
from probes import Trace
from probes.digits import CLASSES, build_network, digits
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.neural_collapse.models import NETWORKS, Unconstrained, make_optimizer, set_rate, step_schedule, weight_of_head
from runs.neural_collapse.nc0 import Vector, nc0, write
from runs.neural_collapse.signs import sign_coupled, sign_decaying, sign_decoupled
from runs.shared.training import update

MOMENTA = (0.0, 0.5, 0.9)
LR, DECAY = 0.02, 0.02  # momentum 0.9 is still on the real side of the recursion's roots
HEAT_MAP = ((0.0, 1.48), (0.9, 0.31))  # momentum, the paper's NC0 at decay 0.005
Losses = Iterator[Callable[[], Tensor]]  # each step's
VANISHED = 1e-6  # of the start; beyond the inverse of it NC0 has diverged


def plan(quick: bool) -> list[Job]:
    """The jobs; a reduced run takes fewer steps on the network and fewer step sizes of the sign rule."""
    steps = 200 if quick else 1000
    etas = [0.02, 0.01] if quick else [0.01, 0.005, 0.0025, 0.00125]
    decaying = {"eta": etas[0], "decay": 1e-3, "path": 20.0, "halvings": 30, "each": 100 if quick else 200}
    return [
        Job("theory-model", unconstrained, {"steps": 1000}),
        Job("theory-network", network, {"steps": steps, "schedule": "constant"}, "network"),
        Job("theory-schedule", network, {"steps": steps, "schedule": "steps"}, "network"),
        Job("theory-stability", stability, {"factors": [0.99, 1.01], "steps": 5000}),
        Job("theory-sign-decoupled", sign_decoupled, {"classes": [3, 4, 10], "eta": 0.4, "decay": 0.05, "steps": 2000}),
        Job("theory-sign-coupled", sign_coupled, {"etas": etas, "decay": 1e-3, "path": 15.0}),
        Job("theory-sign-decaying", sign_decaying, decaying),
        Job("theory-heat-map", heat_map, {"decay": 0.005}),
    ]


def unconstrained(job: JobContext, steps: int) -> dict[str, Any]:
    """Both decays of SGD on the unconstrained-features model, against the theorems' own formulas."""
    labels = torch.arange(50) % CLASSES
    runs = []
    with job.trace(lr=LR, decay=DECAY) as trace:
        for rule, momentum, name in cases():
            torch.manual_seed(job.seed)
            model = Unconstrained(CLASSES, 16, len(labels))
            losses = ((lambda m=model: nn.functional.cross_entropy(m(), labels)) for _ in range(steps))
            optimizer = make_optimizer(rule, model.parameters(), LR, momentum, DECAY)
            found = follow(model.weight, optimizer, [LR] * steps, losses, job)
            runs.append(keep(trace, name, found, formula(rule, momentum, steps) * found[0]))
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
            optimizer = make_optimizer(rule, model.parameters(), rates[0], momentum, DECAY)
            found = follow(weight_of_head(model), optimizer, rates, losses, job)
            if schedule == "constant":
                expected = formula(rule, momentum, steps) * found[0]
            else:
                kind: Any = rule.lower()
                expected = predict_nc0(kind, rates, weight_decay=DECAY, momentum=momentum, nc0_initial=float(found[0]))
            runs.append(keep(trace, name, found, expected))
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
                optimizer = make_optimizer(rule, model.parameters(), 1.0, momentum, factor * bound)
                values = [nc0(model.weight)]
                while len(values) <= steps and VANISHED < values[-1] / values[0] < 1 / VANISHED:
                    update(optimizer, lambda m=model: nn.functional.cross_entropy(m(), labels))  # type: ignore[misc]
                    values.append(nc0(model.weight))
                ratio = values[-1] / values[0]
                ends = {"vanished": ratio <= VANISHED, "diverged": ratio >= 1 / VANISHED}
                write(trace, f"{name}-{factor:g}", value=np.array(values))
                runs.append({"name": name, "factor": factor, "steps": len(values) - 1} | ends)
    return {"runs": runs}


def heat_map(job: JobContext, decay: float) -> dict[str, Any]:
    """The paper's cells: SGD with lr 1e-3, 200 epochs of 469 steps, tenths at epochs 66 and 133, NC0 1.75 before."""
    rates = np.repeat([1e-3 * 0.1 ** ((e >= 66) + (e >= 133)) for e in range(200)], 469)
    momenta, paper = map(list, zip(*HEAT_MAP, strict=True))
    found = [predict_nc0("sgd", rates, weight_decay=decay, momentum=m, nc0_initial=1.75) for m in momenta]
    return {"momenta": momenta, "paper": paper, "values": [float(values[-1]) for values in found]}


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


def follow(weight: Tensor, optimizer: Optimizer, rates: Sequence[float], losses: Losses, job: JobContext) -> Vector:
    """NC0 before training and after each step."""
    values = [nc0(weight)]
    for step, (rate, loss) in enumerate(zip(rates, losses, strict=True)):
        set_rate(optimizer, rate)
        update(optimizer, loss)
        values.append(nc0(weight))
        job.progress(step, len(rates))
    return np.array(values)


def keep(trace: Trace, name: str, found: Vector, expected: Vector) -> dict[str, Any]:
    """The largest relative error of a run, which is written to the trace."""
    write(trace, name, value=found, expected=expected)
    return {"name": name, "error": float(np.abs(found / expected - 1).max()), "first": found[0], "last": found[-1]}
