"""What solvers by linear minimisation oracles share: each layer moves to the steepest point of a ball of its own norm.

    theta <- (1 - lr decay) theta - lr radius N(d)

N(d) is the Z of ||Z|| <= 1 with the largest <d, Z>, for a norm of `landscape.norms`; d is a running mean of gradients.
A subclass says what d, decay, radius and norm are: `Scion`, `Muon` and `SteepestDescent`. The signs of `Signum` are the
case of the largest entry as the norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.norms import newton_schulz, polar_factor, resolve, steepest
from solvers.first_order.base import FirstOrder, Update, buffers


class OracleDescent(FirstOrder):
    """The update of the module. Groups have `lr`, `norm` and `exact`: whether polar factors are by an SVD."""

    takes_complex = False

    def _kind(self, group: dict[str, Any], shape: Sequence[int]) -> str:
        """The norm of a parameter. Raises `ValueError` for one that it cannot have."""
        return resolve(group["norm"], shape)

    def _directions(self, update: Update) -> list[Tensor]:
        """d of each parameter."""
        raise NotImplementedError

    def _decay(self, group: Any) -> float:
        return float(group.get("weight_decay", 0.0))

    def _radius(self, group: Any, kind: str, shape: Sequence[int]) -> float:
        """Of the ball of this norm."""
        return 1.0

    def _lengthened(self, d: Tensor, Z: Tensor) -> Tensor:
        """Z, or a multiple of it by the length of d."""
        return Z

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        for p in group["params"]:
            self._kind(group, p.shape)

    def _move(self, update: Update) -> None:
        group: Any = update.group
        lr, decay = float(group["lr"]), self._decay(group)
        polar = polar_factor if group["exact"] else newton_schulz
        directions = self._directions(update)
        if decay:
            torch._foreach_mul_(update.parameters, 1.0 - lr * decay)
        for p, d in zip(update.parameters, directions, strict=True):
            kind = self._kind(group, p.shape)
            Z = self._lengthened(d, steepest(d, kind, polar))
            p.add_(Z, alpha=-lr * self._radius(group, kind, p.shape))


def running_mean(update: Update, share: float, *, nesterov: bool = False) -> list[Tensor]:
    """m <- (1 - share) m + share g, or with `nesterov` share g + (1 - share) m of that m."""
    mean = buffers(update.states, update.parameters, "mean")
    torch._foreach_lerp_(mean, update.gradients, share)
    return list(torch._foreach_lerp(update.gradients, mean, 1.0 - share)) if nesterov else mean
