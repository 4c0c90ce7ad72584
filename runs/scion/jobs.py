"""The jobs of `runs.scion`: small networks on digits, one solver over step sizes and seeds.

Every run sees the same number of images, with a step size that falls linearly to 0, from weights and an order of
batches that depend on the seed alone. What is kept is the loss over all training images at the end, the accuracy on
the test images, and the largest norm of a layer in units of its radius.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Objective
from landscape.norms import norm
from probes import Monitor
from probes.digits import CLASSES, accuracy, build_network, digits
from probes.instruments.dual_gradient import DualGradient
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.shared.networks import mlp, strided_layers
from solvers import SGD, AdamCoupled, SignSGD
from solvers.first_order.scion import Scion

NETWORKS = ("mlp", "cnn")
BATCHES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
EPOCHS, SEEDS, BATCH = 5, 2, 32
LRS = tuple(2.0**k for k in range(-7, 2))  # of Scion: the length of a step in units of the radius
# the middle of each solver's grid, whose step is a factor of 4
GRIDS = {"scion": 2.0**-5, "momentum": 2.0**-5, "adam": 2.0**-8, "sign": 2.0**-10}
RADII = (5.0, 20.0)  # of constrained runs
HEAD = 10.0  # radius of the last layer, in the sign norm; 1 for the others
MOMENTUM = 0.1
MU_LR, MU_EPOCHS = 2.0**-5, {BATCH: 60, 1347: 600}  # 1347: all images
RESOLUTION = 1e-5  # losses below are rounding, in float32


def plan(quick: bool) -> list[Job]:
    """All jobs; quick: fewer epochs, step sizes and batch sizes, one seed."""
    common: dict[str, Any] = {"epochs": 1 if quick else EPOCHS, "seeds": 1 if quick else SEEDS}
    lrs, jobs = list(LRS[::3] if quick else LRS), []

    def job(network: str, name: str, batch: int = BATCH, solver: str = "scion", **settings: Any) -> None:
        chosen = common | {"network": network, "batch": batch, "solver": solver, "lrs": lrs} | settings
        jobs.append(Job(f"{network}-{name}", sweep, chosen, network))

    for network in NETWORKS:
        for batch in BATCHES[::3] if quick else BATCHES:
            job(network, f"batch-{batch}", batch)
        for solver, middle in GRIDS.items():
            grid = [middle * 4.0**k for k in range(-4, 5, 2 if quick else 1)]
            job(network, f"solver-{solver}", solver=solver, lrs=grid)
        for radius in RADII:
            job(network, f"radius-{radius:g}", radius=radius)
        job(network, "exact", exact=True)
        for batch, epochs in MU_EPOCHS.items():
            settings = {"network": network, "batch": batch, "lr": MU_LR, "seeds": common["seeds"]}
            settings |= {"epochs": epochs // 20 if quick else epochs}
            jobs.append(Job(f"{network}-mu-{batch}", follow, settings, network))
    return jobs


def sweep(
    job: JobContext,
    network: str,
    batch: int,
    epochs: int,
    seeds: int,
    lrs: list[float],
    solver: str,
    radius: float | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """One solver over step sizes and seeds: for each lr a list over seeds of losses, accuracies and norms."""
    runs: list[dict[str, Any]] = []
    for lr in lrs:
        ended = []
        for seed in range(seeds):
            job.progress(len(runs) * seeds + seed, len(lrs) * seeds)
            model = build_network(NETWORK[network], (job.seed + seed) % 2**63)
            optimizer = make(solver, model, lr, radius, exact)
            train(model, optimizer, batch, epochs, job.seed + seed, lambda step: None)
            ended.append(_end(model, radius))
        runs.append({"lr": lr} | {key: [one[key] for one in ended] for key in ended[0]})
    return {"network": network, "batch": batch, "steps": _steps(batch, epochs), "runs": runs}


def follow(job: JobContext, network: str, batch: int, lr: float, epochs: int, seeds: int) -> dict[str, Any]:
    """The gradient's dual norm over the loss along training, while the loss is above its rounding.

    A group of the trace for each seed, `seed-0` and so on, has all of it.
    """
    runs, steps = [], _steps(batch, epochs)
    with job.trace(network=network, batch=batch, lr=lr, epochs=epochs) as trace:
        for seed in range(seeds):
            model = build_network(NETWORK[network], (job.seed + seed) % 2**63)
            objective = Objective(model, nn.CrossEntropyLoss(), digits().train)
            probe = DualGradient(layers=((head(model), "sign", HEAD),), name=f"seed-{seed}")
            monitor = Monitor(objective, [probe], trace, on_error="raise")

            def look(step: int, seed: int = seed, monitor: Monitor = monitor) -> None:
                job.progress(seed * steps + step, seeds * steps)
                if step % max(1, steps // 60) == 0:
                    monitor(step)

            train(model, make("scion", model, lr), batch, epochs, job.seed + seed, look)
            monitor(steps)
            found = trace[f"seed-{seed}"].read()
            known = found["gap"] >= RESOLUTION
            runs.append({key: [float(x) for x in found[key][known]] for key in ("step", "mu", "total", "gap")})
    return {"network": network, "batch": batch, "steps": steps, "runs": runs}


def train(model: nn.Module, optimizer: Any, batch: int, epochs: int, seed: int, before: Callable[[int], None]) -> None:
    """Steps with a step size that falls to 0; ends where the loss is not finite. `before` is called with each step."""
    x, y = digits().train
    steps = _steps(batch, epochs)
    starts = [group["lr"] for group in optimizer.param_groups]
    for step, (inputs, labels) in enumerate(batches(x, y, batch, steps, seed)):
        before(step)
        for group, lr in zip(optimizer.param_groups, starts, strict=True):
            group["lr"] = lr * (1 - step / steps)

        def closure(inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
            return F.cross_entropy(model(inputs), labels)

        if not math.isfinite(float(optimizer.step(closure))):
            break


def make(solver: str, model: nn.Module, lr: float, radius: float | None = None, exact: bool = False) -> Any:
    """The solver of that name. With a radius Scion is constrained, and lr is per radius: steps are as long without."""
    others: dict[str, Any] = {"momentum": partial(SGD, momentum=1 - MOMENTUM), "adam": AdamCoupled, "sign": SignSGD}
    if solver in others:
        return others[solver](model.parameters(), lr)
    if solver != "scion":
        raise ValueError(f"unknown solver {solver!r}")
    size = 1.0 if radius is None else radius
    groups = [
        {"params": [p for name, p in model.named_parameters() if name != head(model)], "scale": size},
        {"params": [model.get_parameter(head(model))], "scale": HEAD * size, "norm": "sign"},
    ]
    return Scion(groups, lr / size, momentum=MOMENTUM, constrained=radius is not None, exact=exact)


def head(model: nn.Module) -> str:
    """The name of the last layer's weights."""
    return [name for name, p in model.named_parameters() if p.ndim >= 2][-1]


def _end(model: nn.Module, radius: float | None) -> dict[str, float | None]:
    """What a run is judged by; None where it diverged."""
    x, y = digits().train
    with torch.no_grad():
        loss = float(F.cross_entropy(model(x), y))
    if not (math.isfinite(loss) and all(bool(torch.isfinite(p).all()) for p in model.parameters())):
        return {"loss": None, "accuracy": 0.0, "largest": None}
    largest = 0.0
    for name, p in model.named_parameters():
        last = name == head(model)
        size = (radius or 1.0) * (HEAD if last else 1.0)
        largest = max(largest, float(norm(p.detach(), "sign" if last else "auto")) / size)
    return {"loss": loss, "accuracy": accuracy(model, digits().test), "largest": largest}


def _steps(batch: int, epochs: int) -> int:
    return epochs * len(digits().train[0]) // batch


NETWORK: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp(64),  # 8970 parameters
    "cnn": lambda: nn.Sequential(*strided_layers(), nn.Linear(64, CLASSES)),  # 1898 parameters
}
