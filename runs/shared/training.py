"""Training loops that several experiments run: one update, the loss in the trace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from probes import Field, Trace

Data = tuple[Tensor, Tensor]


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over samples of |output - target|^2 / 2."""
    return 0.5 * (outputs - targets).square().sum(dim=1).mean()


def one_hot(y: Tensor) -> Tensor:
    """Targets of the square loss, one output a class."""
    return nn.functional.one_hot(y).to(torch.float32)


def update(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    """One step; the loss before it."""
    optimizer.zero_grad()
    value = loss()
    value.backward()
    optimizer.step()
    return float(value.detach())


def declare_loss(trace: Trace) -> None:
    """The loss of the whole data beside the probes' records."""
    trace.declare("loss", {"value": Field((), "float64", "loss", "mean loss over the training images")})
