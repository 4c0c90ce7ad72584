"""The jobs of `runs.edge_of_stability` on the spectrum after training: bulk and outliers, by width and by data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from landscape import Objective
from probes import At, Monitor, SpectralDensity, Spectrum
from probes.digits import accuracy
from probes.sweep.jobs import JobContext
from probes.sweep.problems import batches
from runs.edge_of_stability.data import clusters, images, start
from runs.shared.training import update

BATCH, RATE = 32, 0.1


def spectrum(
    job: JobContext, data: str, classes: int, count: int, width: int, epochs: int, eigenvalues: int
) -> dict[str, Any]:
    """Cross-entropy by SGD; the largest eigenvalues and the density of the Hessian at the end.

    The network has ten outputs however many classes there are, so that it is the data alone that change.
    """
    x, y = clusters(classes, count, job.seed) if data == "clusters" else images(data, count)
    model = start(x.shape[1], width, seed=job.seed)
    objective = Objective(model, nn.functional.cross_entropy, (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    steps = epochs * (len(x) // BATCH)
    with job.trace(data=data, classes=classes, width=width) as trace:
        probes = [Spectrum(eigenvalues, every=At(steps)), SpectralDensity(probes=8, every=At(steps))]
        monitor = Monitor(objective, probes, trace)
        for step, (inputs, labels) in enumerate(batches(x, y, BATCH, steps, job.seed)):
            update(optimizer, lambda i=inputs, t=labels: nn.functional.cross_entropy(model(i), t))  # type: ignore[misc]
            job.progress(step, steps)
        monitor(steps)
    told = {"data": data, "classes": classes, "width": width, "parameters": objective.size}
    return told | {"loss": objective.value(), "accuracy": accuracy(model, (x, y))}
