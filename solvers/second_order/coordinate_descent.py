"""Coordinate descent with a step size by doubling, the first-order baseline of SSCN's experiments (arXiv 2406.16666).

At each step a random subset S of tau coordinates moves by -g_S / L, where L doubles until

    f - f+ >= ||g_S||^2 / (2 L).

In the published baseline every step starts again from the same L = 1; with `keep` it starts from half of where the last
step ended, which saves most of the trial points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters
from solvers.second_order.acceptance import Doubling
from solvers.second_order.block_point import BlockModel, BlockPoint, ProductModel
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.subspace_point import SubspacePoint
from solvers.second_order.subspaces import Schedule, Seen, as_schedule, choose, subspace_size
from solvers.second_order.trial_point import Move, Point


class CoordinateDescent(NewtonSolver):
    """Coordinate descent with doubling; see the module for the update.

    Args:
        params: one group, on one device.
        subspace: how many coordinates, or a schedule of the step alone (`Constant`, `Exponential`, `Linear`).
        L: where the doubling starts, > 0.
        keep: start from half of the last step's L, not from `L`.
        lr: scales the step, before its trial; what schedulers move.
        generator: for the subsets; its state is part of `state_dict`. None: a fresh seed.

    Example:
        >>> import torch
        >>> from solvers import CoordinateDescent
        >>> x = torch.zeros(10, dtype=torch.float64, requires_grad=True)
        >>> solver = CoordinateDescent([x], subspace=3, generator=torch.Generator().manual_seed(0))
        >>> losses = [float(solver.step(lambda: (x - 1).square().sum())) for _ in range(40)]
        >>> losses[0], losses[-1] < 1e-3, solver.last.size
        (10.0, True, 3)
    """

    _memory: ClassVar[tuple[str, ...]] = ("steps",)

    def __init__(
        self,
        params: Parameters,
        subspace: int | Schedule,
        *,
        L: float = 1.0,
        keep: bool = False,
        lr: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(params, ("L", L), Doubling(remembers=keep), dense=False, lr=lr, generator=generator)
        self.schedule = as_schedule(subspace, self.most)
        self._steps = 0

    @override
    def _curvature(self) -> bool:
        return False

    @override
    def _blocks(self, model: BlockModel, leaves: list[Tensor]) -> Point | None:
        if not isinstance(model, ProductModel):
            return None
        S = self._subset(sum(p.numel() for p in leaves))
        return BlockPoint(model, leaves, S, model.gradient(S))

    @override
    def _within(self, whole: Point) -> Point:
        return SubspacePoint(whole, self._subset(len(whole.g)))

    def _subset(self, n: int) -> Tensor:
        return choose(n, subspace_size(self.schedule, n, Seen(self._steps)), "coordinates", [], self.generator)

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        squared = float(point.g.square().sum())
        return lambda L: Move(-point.g / L, 0.5 * squared / L, math.nan, len(point.g), L)

    @override
    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        self._steps += 1
