"""Coordinate descent with a step size by doubling, the first-order baseline of SSCN's experiments (arXiv 2406.16666).

At each step a random subset S of tau coordinates moves by -g_S / L, where L doubles until

    f - f+ >= ||g_S||^2 / (2 L).

In the published baseline every step starts again from the same L = 1; with `keep` it starts from half of where the last
step ended, which saves most of the trial points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from solvers.base import Parameters, check
from solvers.second_order.acceptance import SMALLEST
from solvers.second_order.newton import Move, NewtonSolver
from solvers.second_order.subspaces import Schedule, Seen, as_schedule, choose
from solvers.second_order.trial_point import Point


class CoordinateDescent(NewtonSolver):
    """Coordinate descent with doubling; see the module for the update.

    Args:
        params: one group, on one device.
        subspace: how many coordinates, or a schedule of the step alone (`Constant`, `Exponential`, `Linear`).
        L: where the doubling starts, > 0.
        keep: start from half of the last step's L, not from `L`.
        generator: for the subsets; its state is part of `state_dict`. None: a fresh seed.
    """

    _retries = True
    _dense = False

    def __init__(
        self,
        params: Parameters,
        subspace: int | Schedule,
        *,
        L: float = 1.0,
        keep: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        check(L=(L, 0 < L < math.inf))
        super().__init__(params, ("L", L), generator=generator)
        self.schedule, self._remembers = as_schedule(subspace), keep
        if isinstance(subspace, int) and subspace > self.n:
            raise ValueError(f"a subspace of {subspace} coordinates does not fit into {self.n} parameters")
        self._steps = 0

    def _curvature(self) -> bool:
        return False

    def _model(self, point: Point) -> Callable[[float], Move]:
        size = max(1, min(self.n, int(self.schedule.size(self.n, Seen(self._steps)))))
        sizes = [p.numel() for p in self._leaves]
        S = choose(self.n, size, "coordinates", sizes, self.generator)
        g = torch.zeros_like(point.g)
        g[S] = point.g[S]
        squared = float(g.square().sum())
        return lambda L: Move(-g / L, 0.5 * squared / L, math.nan, L, len(S), part=lambda v: v[S])

    def _judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        accepted = point.loss - new >= move.decrease
        return accepted, max(0.5 * used, SMALLEST) if accepted else 2.0 * used

    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        self._steps += 1

    def _own(self) -> dict[str, int]:
        return {"steps": self._steps}

    def _restore(self, own: dict[str, int]) -> None:
        self._steps = own["steps"]
