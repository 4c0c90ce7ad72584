"""What a sweep trains on: a problem that a function returns, its mini-batches, its loss.

The function returns an `Objective` on the data to train on, or a pair of these: the second one is on data to test on.
Weights are drawn from torch's global generator, which the sweep seeds: every solver and step size starts from the
same ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape import Objective
from probes.checkpoints.problem import as_objective, call_problem


@dataclass(frozen=True)
class TrainingTask:
    """What is minimised, and the test data if there are any."""

    objective: Objective
    test: Objective | None = None

    def draws(self, size: int, steps: int, seed: int) -> Iterator[tuple[Any, Any]]:
        """(inputs, targets) of each step, in a new order each epoch.

        A single pair of tensors is cut into mini-batches of `size`; other data keep their own batches.
        """
        own = [(batch.inputs, batch.targets) for batch in self.objective.sweep()]
        x, y = own[0]
        if len(own) == 1 and isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim and y.ndim and len(x) > size:
            yield from batches(x, y, size, steps, seed)
            return
        generator = torch.Generator().manual_seed(seed)
        order: list[int] = []
        for _ in range(steps):
            order = order or torch.randperm(len(own), generator=generator).tolist()
            yield own[order.pop()]

    def loss(self, batch: tuple[Any, Any]) -> Tensor:
        """The loss of a mini-batch with its graph, the model in the mode that it is in."""
        # not `objective.evaluate`, which gives buffers back and fixes dropout: right for measuring, not for training
        return self.objective.criterion(self.objective.forward(batch[0]), batch[1])


def build(spec: str, seed: int) -> TrainingTask:
    """The problem that a `FILE.py:FUNCTION` or `module:function` returns, with the weights that the seed draws.

    The global random state stays as it was. Raises `UserError` when the function cannot be found, raises, or returns
    anything else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = call_problem(spec)
    if isinstance(made, tuple) and len(made) == 2 and all(isinstance(one, Objective) for one in made):
        return TrainingTask(*made)
    return TrainingTask(as_objective(spec, made))


def locate(spec: str) -> tuple[str, str, str]:
    """A problem's name, the same from wherever it is named; where it is, absolute; and a digest of its file.

    A module has no digest: what belongs to a package is known by its name.
    """
    source, _, function = spec.rpartition(":")
    if not source.endswith(".py"):
        return spec, spec, ""
    path = Path(source).absolute()
    content = path.read_bytes() if path.is_file() else b""
    return f"{path.name}:{function}", f"{path}:{function}", hashlib.blake2b(content, digest_size=8).hexdigest()


def batches(x: Tensor, y: Tensor, size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` mini-batches, in a new order each epoch; what does not fill a batch is left out of the epoch."""
    generator = torch.Generator().manual_seed(seed)
    order: list[Tensor] = []
    for _ in range(steps):
        if not order:
            order = [i for i in torch.randperm(len(x), generator=generator).split(size) if len(i) == size]
        i = order.pop()
        yield x[i], y[i]


def evaluate(objective: Objective) -> tuple[float, float]:
    """The loss over all data, as `objective.value()`, and the share of right answers, from one pass.

    The share is nan where outputs are no logits (N, C, ...) with their classes (N, ...) as targets.
    """
    total, terms, right, count = 0.0, 0.0, 0, 0
    with objective.measuring(), torch.no_grad():
        for batch in objective.sweep():
            e = objective.evaluate(batch)
            outputs, targets = e.outputs, batch.targets
            if e.weight:
                total, terms = total + e.weight * float(e.loss()), terms + e.weight
            if _classes(outputs, targets):
                right, count = right + int((outputs.argmax(dim=1) == targets).sum()), count + targets.numel()
    return float(objective.normalise(total, terms)), right / count if count else math.nan


def _classes(outputs: Any, targets: Any) -> bool:
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not tensors or targets.is_floating_point() or outputs.ndim != targets.ndim + 1:
        return False
    return bool(outputs[:, 0].shape == targets.shape)
