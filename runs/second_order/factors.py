"""Jobs: K-FAC and EKFAC against the exact Gauss-Newton matrix, by depth and width, before and after training.

ReLU networks on digits of 4 x 4 pixels (means of 2 x 2), cross-entropy, float64. Weights are drawn after He et al. with
zero biases, and trained by Adam on all images at once; the matrices are of the first `IMAGES` of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Objective
from probes.digits import CLASSES, build_network, digits
from probes.sweep.jobs import Job, JobContext
from runs.second_order.errors import block_errors, measure
from runs.shared.training import half_square, one_hot
from solvers import AdamCoupled

PIXELS, IMAGES, SEEDS = 16, 300, 5
STEPS, LR = 300, 0.01  # of Adam, on all images
DEPTHS, WIDTH = (1, 2, 4, 8), 16  # hidden layers, each of that many units
WIDTHS, DEPTH = (5, 10, 20, 40), 2
LOOKED_THROUGH = 1500  # parameters up to which the inverse is looked at
DAMPINGS = (0.01, 0.1, 1.0)  # of the inverse, in units of the mean eigenvalue


def plan(quick: bool) -> list[Job]:
    """Depths at one width, widths at one depth, and the cases in which K-FAC is exact."""
    seeds = 2 if quick else SEEDS
    common = {"seeds": seeds, "images": 100 if quick else IMAGES, "steps": 30 if quick else STEPS}
    depths, widths = (DEPTHS[:2], WIDTHS[:2]) if quick else (DEPTHS, WIDTHS)
    sizes = {f"depth-{d}": [WIDTH] * d for d in depths} | {f"width-{w}": [w] * DEPTH for w in widths}
    jobs = [Job(f"factors-{name}", errors, {"hidden": h} | common, "factors") for name, h in sizes.items()]
    return [Job("factors-exact", exact, {"seeds": seeds}, "factors"), *jobs]


def errors(job: JobContext, hidden: list[int], seeds: int, images: int, steps: int) -> dict[str, Any]:
    """What `measure` finds in networks with such hidden layers, before and after training, for each seed."""
    x, y = data()
    runs = []
    for seed in range(seeds):
        job.progress(seed, seeds)
        model = network([PIXELS, *hidden, CLASSES], job.seed + seed)
        objective = Objective(model, nn.CrossEntropyLoss(), (x[:images], y[:images]))
        dampings = DAMPINGS if objective.size <= LOOKED_THROUGH else ()
        generator = torch.Generator().manual_seed(job.seed + seed)
        before = measure(objective, generator, dampings)
        train(model, steps)
        after = measure(objective, generator, dampings)
        runs.append({"size": objective.size, "before": before, "after": after, "loss": objective.value()})
    return {"hidden": hidden, "runs": runs}


def train(model: nn.Module, steps: int) -> None:
    """Steps of Adam on all images."""
    x, y = data()
    optimizer = AdamCoupled(model.parameters(), LR)
    for _ in range(steps):
        optimizer.step(lambda: F.cross_entropy(model(x), y))


def exact(job: JobContext, seeds: int) -> dict[str, Any]:
    """The largest relative error of a block by case and seed: cases in which K-FAC is exact, and their controls.

    A control changes one thing: two images for one, ReLU for none, cross-entropy for the square loss.
    """
    runs: list[dict[str, float]] = []
    for seed in range(seeds):
        found = {name: max(block_errors(objective)) for name, objective in cases(job.seed + seed)}
        runs.append(found)
    return {"runs": runs}


def cases(seed: int) -> Iterator[tuple[str, Objective]]:
    """The objectives by name."""
    x, y = data()
    targets = one_hot(y).double()
    deep = [PIXELS, 12, 12, CLASSES]
    cross = nn.CrossEntropyLoss()
    yield "one image", Objective(network(deep, seed), cross, (x[:1], y[:1]))
    yield "two images", Objective(network(deep, seed), cross, (x[:2], y[:2]))
    for name, sizes in {"one layer": [PIXELS, CLASSES], "deep linear": deep}.items():
        linear = network(sizes, seed, relu=False)
        yield f"{name}, square loss", Objective(linear, half_square, (x[:50], targets[:50]))
        yield f"{name}, cross-entropy", Objective(linear, cross, (x[:50], y[:50]))
    yield "deep ReLU, square loss", Objective(network(deep, seed), half_square, (x[:50], targets[:50]))


def data() -> tuple[Tensor, Tensor]:
    """Images `(1347, 16)` float64, and their labels."""
    x, y = digits().train
    return F.avg_pool2d(x, 2).flatten(1).double(), y


def network(sizes: list[int], seed: int, *, relu: bool = True) -> nn.Module:
    """Linear layers between these sizes, with ReLU between them or nothing."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for i in range(len(sizes) - 1):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU() if relu else nn.Identity()]
        for layer in layers[::2]:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if relu else "linear")
            nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers[:-1])

    return build_network(make, seed % 2**63).double()
