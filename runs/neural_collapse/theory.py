"""What `runs.neural_collapse` computes without training a network: the paper's heat map of NC0, and the sign rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from landscape.collapse import predict_nc0
from probes.sweep.jobs import Job, JobContext
from runs.neural_collapse.signs import sign_coupled, sign_decaying, sign_decoupled

# The paper's Fig. 5: NC0 of ResNet9 on Fashion-MNIST after 200 epochs of SGD with coupled decay, by momentum.
HEAT_DECAYS = (0.0, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3)
HEAT_MAP = {
    0.0: (1.75, 1.75, 1.75, 1.75, 1.72, 1.69, 1.61, 1.48),
    0.5: (1.75, 1.75, 1.75, 1.74, 1.69, 1.64, 1.48, 1.24),
    0.7: (1.75, 1.75, 1.74, 1.73, 1.66, 1.56, 1.32, 0.99),
    0.9: (1.75, 1.74, 1.72, 1.69, 1.48, 1.24, 0.74, 0.31),
    0.95: (1.75, 1.72, 1.69, 1.64, 1.24, 0.88, 0.31, 0.06),
    0.97: (1.75, 1.70, 1.66, 1.56, 0.99, 0.56, 0.10, 0.01),
    0.98: (1.75, 1.68, 1.61, 1.48, 0.74, 0.31, 0.02, 0.00),
}
START = 1.754  # NC0 before training: the one number


def plan(quick: bool) -> list[Job]:
    """The jobs; a reduced run takes fewer step sizes of the sign rule."""
    etas = [0.02, 0.01] if quick else [0.01, 0.005, 0.0025, 0.00125]
    decaying = {"eta": etas[0], "decay": 1e-3, "path": 20.0, "halvings": 30, "each": 100 if quick else 200}
    return [
        Job("theory-heat-map", heat_map, {"start": START}),
        Job("theory-sign-decoupled", sign_decoupled, {"classes": [3, 4, 10], "eta": 0.4, "decay": 0.05, "steps": 2000}),
        Job("theory-sign-coupled", sign_coupled, {"etas": etas, "decay": 1e-3, "path": 15.0}),
        Job("theory-sign-decaying", sign_decaying, decaying),
    ]


def heat_map(job: JobContext, start: float) -> dict[str, Any]:
    """NC0 at the end of the paper's runs, a row for each momentum, by the recursions of both kinds of decay.

    The learning rate is 1e-3, a tenth of it from epoch 66 on, a hundredth from epoch 133; 469 steps an epoch.
    """
    rates = np.repeat([1e-3 * 0.1 ** ((e >= 66) + (e >= 133)) for e in range(200)], 469)
    found: dict[str, Any] = {"momenta": list(HEAT_MAP), "decays": list(HEAT_DECAYS), "sgd": [], "sgdw": []}
    rules: Any = ("sgd", "sgdw")
    for number, momentum in enumerate(HEAT_MAP):
        for rule in rules:
            ends = (
                predict_nc0(rule, rates, weight_decay=decay, momentum=momentum, nc0_initial=start)[-1]
                for decay in HEAT_DECAYS
            )
            found[rule].append([float(end) for end in ends])
        job.progress(number + 1, len(HEAT_MAP))
    return found
