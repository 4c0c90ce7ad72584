"""The jobs of `runs.edge_of_stability` that train to the edge: gradient descent and SGD, with probes inside the loop.

Losses are means over samples: cross-entropy, or half the squared distance to the target, summed over the outputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from landscape import Objective
from probes import BatchSharpness, Monitor, Sharpness, Spectrum
from probes.digits import accuracy
from probes.probe import Probe
from probes.sweep.jobs import JobContext
from probes.sweep.problems import batches
from runs.edge_of_stability.data import LOSSES, images, start, targets
from runs.shared.training import declare_loss, update

SCALE = 0.4  # of the first weights: no run starts sharper than 2/eta, as with the 0.2 of Andreyev and Beneventano
TOL = 1e-2  # of the residual; the eigenvalue itself is off by far less
CONFIRM = 10  # every so many measurements a random chain looks for a larger eigenvalue that the warm start missed
RTOL = 0.03  # of batch sharpness


def sharpness(every: int) -> list[Probe]:
    """The largest eigenvalue, followed from its last vector; "confirmed" is the same with a proof that none is missed.

    Where both are due they share one search.
    """
    following = Spectrum(1, name="sharpness", tol=TOL, confirm=False, every=every)
    return [following, Sharpness(name="confirmed", tol=TOL, every=CONFIRM * every)]


def descend(
    job: JobContext, data: str, count: int, width: int, loss: str, rate: float, steps: int, every: int
) -> dict[str, Any]:
    """Full-batch gradient descent: the loss of every step, the sharpness every few."""
    x, y = images(data, count)
    t, criterion = targets(loss, y), LOSSES[loss]
    model = start(x.shape[1], width, scale=SCALE, seed=job.seed)
    objective = Objective(model, criterion, (x, t))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with job.trace(loss=loss, rate=rate) as trace:
        declare_loss(trace)
        monitor = Monitor(objective, sharpness(every), trace, optimizer=optimizer)
        for step in range(steps + 1):
            monitor(step)
            value = update(optimizer, lambda: criterion(model(x), t))
            trace.record("loss", step, value=value)
            job.progress(step, steps)
    return {"rate": rate, "loss": value, "parameters": objective.size, "accuracy": accuracy(model, (x, y))}


def stochastic(
    job: JobContext, data: str, count: int, width: int, rate: float, batch: int, steps: int, every: int, stop: float
) -> dict[str, Any]:
    """SGD on the square loss: sharpness of the whole loss, batch sharpness and the whole loss, every few steps.

    It ends early where the whole loss is below `stop` times its first value, or infinite.
    """
    x, y = images(data, count)
    t, criterion = targets("square", y), LOSSES["square"]
    model = start(x.shape[1], width, scale=SCALE, seed=job.seed)
    objective = Objective(model, criterion, (x, t))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    probes = [*sharpness(every), BatchSharpness(batch_size=batch, rtol=RTOL, every=every)]
    with job.trace(rate=rate, batch=batch) as trace:
        declare_loss(trace)
        monitor = Monitor(objective, probes, trace, optimizer=optimizer)
        first = math.nan
        for step, (inputs, wanted) in enumerate(batches(x, t, batch, steps + 1, job.seed)):
            monitor(step)
            if step % every == 0:
                value = objective.value()
                trace.record("loss", step, value=value)
                first = value if step == 0 else first
                if not stop * first <= value < math.inf:
                    break
            update(optimizer, lambda i=inputs, w=wanted: criterion(model(i), w))  # type: ignore[misc]
            job.progress(step, steps)
    told = {"rate": rate, "batch": batch, "steps": step, "first": first, "loss": value}
    return told | {"accuracy": accuracy(model, (x, y))}
