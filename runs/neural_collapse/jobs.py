"""The jobs of `runs.neural_collapse`: several training runs each, from the same weights and on the same batches.

A ResNet with batch norm, as the paper's networks have it, and an MLP without any, on 800 images of Fashion-MNIST of
14 x 14 pixels: 75 epochs, 600 steps; in the reduced run digits and fewer steps.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import nn

from probes.digits import build_network
from probes.sweep.jobs import Job, JobContext
from runs.neural_collapse import separable, theory
from runs.neural_collapse.data import images
from runs.neural_collapse.models import COUPLED, NETWORKS, OPTIMIZERS, family, make_adam, make_optimizer
from runs.neural_collapse.training import Row, train

STEPS = 600
RATES = {"SGD": (0.02, 0.0679, 0.2), "Adam": (0.001, 0.005, 0.01), "Signum": (0.001, 0.005, 0.01)}
MOMENTA = (0.5, 0.9, 0.95)
# Without decay the two kinds are one: coupled runs stand for both.
DECAYS = {
    "SGD": (0.0, 0.005, 0.02),
    "SGDW": (0.05, 0.2),
    "Adam": (0.0, 0.005, 0.05),
    "AdamW": (0.5, 2.0),
    "Signum": (0.0, 0.005, 0.05),
    "SignumW": (0.5, 2.0),
}
SETTING = {"SGD": 0.0679, "Adam": 0.005, "Signum": 0.005}  # the rates at which all optimizers are compared
MOMENTUM = 0.9
SETTING_OF = {"resnet": (0.02, STEPS), "mlp": (0.002, 2000)}  # decay and steps; without batch norm 0.02 stops training
SEEDS = 3
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the decay that is coupled, between Adam and AdamW
SHARED = 0.02
# 1 / (1 - momentum) is 2, 8, 32, and decays are apart by a factor of 4: decay / (1 - momentum) meets itself
MAP_RATE, MAP_MOMENTA, MAP_DECAYS = 0.0679, (0.5, 0.875, 0.96875), (0.0, 0.00075, 0.003, 0.012)
MAP_STEPS = 1000  # decay / (1 - momentum) times the sum of the rates goes up to 9.6, in the paper's map to 8.6
LONG = {
    "lr": 0.01,
    "decay": 2.0,
    "steps": 2000,
}  # decay * sum of the rates: 15; 5 and more do not train in so few steps


def plan(quick: bool) -> list[Job]:
    """The theorems and small problems, the setting from several weights, trends, and the grid."""
    data, steps = ("digits", 100) if quick else ("fashion", STEPS)
    given = {"data": data, "steps": steps}
    jobs = [*theory.plan(quick), *separable.plan(quick)]

    def for_seeds(name: str, run: Any, settings: Row, network: str = "resnet") -> None:
        seeds = 1 if quick else SEEDS
        jobs.extend(Job(f"{name}-s{seed}", run, settings, f"{network}-{seed}") for seed in range(seeds))

    for network, (decay, length) in SETTING_OF.items():
        own = {"network": network, "decay": decay, "rates": SETTING, "data": data, "steps": steps if quick else length}
        for_seeds(f"setting-{network}", setting, own, network)
    for_seeds("between", between, {"decay": SHARED, "shares": list(SHARES[::5] if quick else SHARES), **given})
    long = LONG | ({"steps": 200} if quick else {})
    for_seeds("long", decoupled, {"data": data, **long})
    momenta, decays = (MAP_MOMENTA[:2], MAP_DECAYS[2:]) if quick else (MAP_MOMENTA, MAP_DECAYS)
    cells = {"lr": MAP_RATE, "momenta": list(momenta), "decays": list(decays)}
    for_seeds("map", momentum_map, {**cells, "data": data, "steps": steps if quick else MAP_STEPS})
    for optimizer in OPTIMIZERS:
        rates = RATES[family(optimizer)]
        for lr in rates[1:2] if quick else rates:
            each = [list(cell) for cell in itertools.product(MOMENTA[1:2] if quick else MOMENTA, DECAYS[optimizer])]
            settings = {"optimizer": optimizer, "lr": lr, "cells": each}
            jobs.append(Job(f"grid-{optimizer}-lr{lr:g}", grid, {**settings, **given}, "resnet-0"))
    return jobs


def made(job: JobContext, network: str, data: str) -> nn.Sequential:
    """A network for these images, with the weights of the job's seed."""
    model = build_network(lambda: NETWORKS[network](images(data)[0][0].shape[-1]), job.seed)
    assert isinstance(model, nn.Sequential)
    return model


def run(
    job: JobContext,
    network: str,
    data: str,
    steps: int,
    optimizer: str,
    lr: float,
    momentum: float,
    decay: float,
    looks: int = 0,
) -> Row:
    """One training run, with so many looks on the way."""
    model = made(job, network, data)
    mover = make_optimizer(optimizer, list(model.parameters()), lr, momentum, decay)
    found = train(model, mover, images(data), lr, steps, job.seed, range(0, steps, steps // looks) if looks else ())
    return {"optimizer": optimizer, "lr": lr, "momentum": momentum, "decay": decay, "steps": steps} | found


def grid(job: JobContext, optimizer: str, lr: float, cells: list[list[float]], data: str, steps: int) -> dict[str, Any]:
    """The ResNet by one optimizer at one rate, at several momenta and decays."""
    runs = []
    for momentum, decay in cells:
        runs.append(run(job, "resnet", data, steps, optimizer, lr, momentum, decay))
        job.progress(len(runs), len(cells))
    return {"runs": runs}


def setting(
    job: JobContext, network: str, decay: float, rates: dict[str, float], data: str, steps: int
) -> dict[str, Any]:
    """All optimizers at one decay and momentum, and those with coupled decay also without any."""
    runs = []
    for optimizer in OPTIMIZERS:
        for each in (0.0, decay) if optimizer in COUPLED else (decay,):
            lr = rates[family(optimizer)]
            runs.append(run(job, network, data, steps, optimizer, lr, MOMENTUM, each, looks=10))
            job.progress(len(runs), 9)
    return {"network": network, "runs": runs}


def between(job: JobContext, decay: float, shares: list[float], data: str, steps: int) -> dict[str, Any]:
    """Adam on the ResNet with a share of the decay coupled and the rest decoupled."""
    runs = []
    for share in shares:
        model = made(job, "resnet", data)
        mover = make_adam(list(model.parameters()), SETTING["Adam"], MOMENTUM, share * decay, (1 - share) * decay)
        runs.append({"share": share} | train(model, mover, images(data), SETTING["Adam"], steps, job.seed))
        job.progress(len(runs), len(shares))
    return {"runs": runs}


def decoupled(job: JobContext, data: str, lr: float, decay: float, steps: int) -> dict[str, Any]:
    """AdamW and SignumW on the ResNet with a decay that alone would leave nothing of W."""
    runs = []
    for optimizer in ("AdamW", "SignumW"):
        runs.append(run(job, "resnet", data, steps, optimizer, lr, MOMENTUM, decay))
        job.progress(len(runs), 2)
    return {"runs": runs}


def momentum_map(
    job: JobContext, lr: float, momenta: list[float], decays: list[float], data: str, steps: int
) -> dict[str, Any]:
    """SGD with coupled decay on the ResNet, by momentum and decay."""
    cells = list(itertools.product(momenta, decays))
    runs = []
    for momentum, decay in cells:
        runs.append(run(job, "resnet", data, steps, "SGD", lr, momentum, decay))
        job.progress(len(runs), len(cells))
    return {"runs": runs}
