"""One pass over images: an MLP that is trained on so many of them, once each, and judged by others.

Scion is constrained, as Algorithm 1 of arXiv 2603.21191: the weights of the last layer have the sign norm, the others
the spectral norm and biases rms; the step size is constant, then falls linearly to 0 over the last 28 % of the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probes.digits import CLASSES, build_network, digits
from runs.shared.data import fashion_mnist, standardised
from solvers import AdamCoupled, Scion, batch_rule
from solvers.first_order.batch_rule import Settings

RADIUS, HEAD = 8.0, 128.0  # of the balls, that of the last layer in the sign norm (arXiv 2502.07529 on CIFAR-10)
WIDTH = 128  # of both hidden layers


@dataclass(frozen=True)
class Split:
    """Images as rows, of zero mean and unit variance over all training images, with labels."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@lru_cache(maxsize=1)
def split(data: str) -> Split:
    """ "fashion": 60,000 images to train on and 10,000 others; "digits": 1347 and 450."""
    found = digits() if data == "digits" else fashion_mnist()
    return Split(*standardised(*((x.flatten(1), y) for x, y in (found.train, found.test))))


@dataclass(frozen=True)
class Setup:
    """What is trained, by what: `solver` is "scion" or "adam"."""

    data: str
    solver: str = "scion"

    def network(self, seed: int) -> nn.Sequential:
        """An MLP with two hidden layers, its weights drawn from the seed."""
        inputs, w = split(self.data).train[0].shape[1], WIDTH

        def make() -> nn.Sequential:
            hidden = nn.Linear(inputs, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU()
            return nn.Sequential(*hidden, nn.Linear(w, CLASSES))

        made = build_network(make, seed % 2**63)
        assert isinstance(made, nn.Sequential)
        return made

    def optimizer(self, model: nn.Sequential) -> Any:
        """Its step size is set before each step."""
        if self.solver == "adam":
            return AdamCoupled(model.parameters(), 0.0)
        head = model[-1].weight
        others = [p for p in model.parameters() if p is not head]
        groups = [{"params": others, "scale": RADIUS}, {"params": [head], "norm": "sign", "scale": HEAD}]
        return Scion(groups, 0.0, constrained=True)


@dataclass(frozen=True)
class Step:
    """Before a step: how many images were seen, its batch, the step size and the momentum that it will have."""

    number: int
    seen: int
    inputs: Tensor
    labels: Tensor
    lr: float
    momentum: float


def steps(data: str, stages: Sequence[Settings], seed: int) -> Iterator[Step]:
    """The steps of a run that goes through these stages; the step size falls at the end of all of them.

    Images come in an order that the seed draws, none twice. The first running mean is the first gradient.
    """
    x, y = split(data).train
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed % 2**63))
    total = sum(stage.budget for stage in stages)
    factor = batch_rule.constant_then_linear(total)
    number = seen = start = 0
    for stage in stages:
        start += round(stage.budget)
        size = round(stage.batch)
        while seen + size <= start:
            i = order[seen : seen + size]
            momentum = stage.momentum if number else 1.0
            yield Step(number, seen, x[i], y[i], stage.lr * factor(seen), momentum)
            number, seen = number + 1, seen + size


def train(
    setup: Setup, stages: Sequence[Settings], seed: int, before: Callable[[Step, nn.Module], None] | None = None
) -> nn.Sequential:
    """The trained network; a run ends where its loss is not finite. `before` is called ahead of each step."""
    model = setup.network(seed)
    optimizer = setup.optimizer(model)
    for step in steps(setup.data, stages, seed):
        if before is not None:
            before(step, model)
        for group in optimizer.param_groups:
            group["lr"] = step.lr
            if setup.solver == "scion":
                group["momentum"] = step.momentum

        def closure(step: Step = step) -> Tensor:
            return F.cross_entropy(model(step.inputs), step.labels)

        if not math.isfinite(float(optimizer.step(closure))):
            break
    return model


def judged(setup: Setup, model: nn.Module) -> tuple[float | None, float]:
    """Mean loss over the test images, None where it is not finite, and the share of right answers."""
    x, y = split(setup.data).test
    with torch.no_grad():
        outputs = model(x)
    loss, right = float(F.cross_entropy(outputs, y)), float((outputs.argmax(1) == y).double().mean())
    return (loss if math.isfinite(loss) else None), right
