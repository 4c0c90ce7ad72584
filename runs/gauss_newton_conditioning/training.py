"""The jobs of `runs.gauss_newton_conditioning` that train linear networks on white data: kappa along training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from landscape.conditioning import Conditioning, linear_network
from probes import Field
from probes.digits import CLASSES
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.gauss_newton_conditioning.data import (
    ConditionRows,
    generator,
    initialisations,
    kaiming,
    labelled,
    pixels,
    white,
)
from runs.shared.training import half_square, one_hot, update

WIDTHS = (15, 20, 50, 100, 150, 200)
RATES = (0.32, 0.16, 0.08, 0.04, 0.02, 0.01)
SAMPLES, BATCH = 1000, 250
PER_EPOCH = SAMPLES // BATCH


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    data = "digits" if quick else "fashion"
    three = {"data": data, "epochs": 20 if quick else 300, "every": 10 if quick else 15}
    one = {"data": data, "rates": list(RATES[2:4] if quick else RATES), "epochs": 6 if quick else 60}
    one |= {"every": 3 if quick else 6, "inits": 1 if quick else 5}
    return [
        *(Job(f"training-{init}", training, three) for init in range(1 if quick else 3)),
        *(Job(f"wide-{width}", wide, {"width": width, **one}) for width in (WIDTHS[2:4] if quick else WIDTHS)),
    ]


def white_classes(data: str) -> tuple[Tensor, Tensor]:
    """Inputs whose covariance is the identity, and one-hot targets."""
    x = white(pixels(data, SAMPLES)) * SAMPLES**0.5
    return x, one_hot(labelled(data, SAMPLES)[1]).double()


def along(
    layers: list[nn.Linear], data: tuple[Tensor, Tensor], rate: float, epochs: int, every: int, seed: int
) -> Iterator[tuple[int, float, Conditioning]]:
    """(epoch, loss of all samples, kappa) at the start and every few epochs of SGD; ends early where that explodes."""
    x, y = data
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    first = math.inf
    for step, (i, t) in enumerate(batches(x, y, BATCH, epochs * PER_EPOCH + 1, seed)):
        if step % (every * PER_EPOCH) == 0:
            with torch.no_grad():
                loss = float(half_square(model(x), y))
            if not loss < 10 * first:
                return
            first = loss if step == 0 else first
            yield step // PER_EPOCH, loss, linear_network([layer.weight for layer in layers])
        update(optimizer, lambda i=i, t=t: half_square(model(i), t))  # type: ignore[misc]


def training(job: JobContext, data: str, epochs: int, every: int) -> dict[str, Any]:
    """Three layers d-160-160-10 without biases, Xavier normal, SGD: kappa as it trains."""
    x, y = white_classes(data)
    shapes = (x.shape[1], 160, 160, CLASSES)
    layers = [nn.Linear(a, b, bias=False).double() for a, b in pairwise(shapes)]
    source = generator(job, 0)
    for layer in layers:
        nn.init.xavier_normal_(layer.weight, generator=source)
    rate, losses = 0.05, []
    with job.trace(rate=rate, batch=BATCH) as trace:
        rows = ConditionRows(trace, "epochs", "loss")
        eigenvalues = Field((x.shape[1] * CLASSES,), "float64", "", "ascending")
        trace.declare("spectrum", {"epochs": Field((), "float64", "", "of SGD so far"), "eigenvalues": eigenvalues})
        for epoch, loss, found in along(layers, (x, y), rate, epochs, every, job.seed):
            rows.add(found, epochs=epoch, loss=loss)
            losses.append(loss)
            if epoch in (0, epochs):
                assert found.eigenvalues is not None
                trace.record("spectrum", epoch, epochs=epoch, eigenvalues=found.eigenvalues.numpy())
            job.progress(epoch, epochs)
    return {"widths": list(shapes), "first": losses[0], "last": losses[-1]}


def wide(
    job: JobContext, data: str, width: int, rates: list[float], epochs: int, every: int, inits: int
) -> dict[str, Any]:
    """One hidden layer of one width, Kaiming normal, by step size: kappa and loss as it trains, unless it diverges."""
    given = white_classes(data)
    inputs = given[0].shape[1]
    with job.trace(width=width, batch=BATCH) as trace:
        rows = ConditionRows(trace, "width", "rate", "init", "epochs", "loss")
        for init, source, rate in initialisations(job, inits, rates):
            source.manual_seed(source.initial_seed())  # the same weights for all step sizes
            weights = kaiming([inputs, width, CLASSES], source)
            layers = [nn.Linear(W.shape[1], W.shape[0], bias=False).double() for W in weights]
            with torch.no_grad():
                for layer, W in zip(layers, weights, strict=True):
                    layer.weight.copy_(W)
            run = list(along(layers, given, rate, epochs, every, job.seed + init))
            for epoch, loss, found in run if run[-1][0] == epochs else ():
                rows.add(found, width=width, rate=rate, init=init, epochs=epoch, loss=loss)
    return {"inputs": inputs, "width": width}
