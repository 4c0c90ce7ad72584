"""A point of the whole space seen in a subspace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from solvers.second_order.trial_point import Point


class SubspacePoint(Point):
    """A point seen in a subspace: g, the Hessian and steps are in the coordinates of its directions.

    Args:
        point: in the whole space.
        directions: indices of coordinates `(tau,)`, or vectors `(n, tau)`.
        block: indices -> H_SS, instead of tau products.
    """

    def __init__(self, point: Point, directions: Tensor, block: Callable[[Tensor], Tensor] | None = None) -> None:
        self.whole, self._block, self._P = point, block, directions
        self.loss, self.eps, self.leaves = point.loss, point.eps, point.leaves
        if directions.ndim == 2:
            A = point.operator()
            self._P = directions.to(device=A.device, dtype=A.dtype)
        self.g = self._project(point.g)

    def _project(self, gradient: Tensor) -> Tensor:
        if self._P.ndim == 2:
            return (self._P.T @ gradient.to(self._P)).double().cpu()
        return gradient[self._P]

    def lift(self, h: Tensor) -> Tensor:
        """The step `(n,)` in the whole space."""
        if self._P.ndim == 2:
            return self._P.double() @ h.to(self._P.device)
        step = torch.zeros_like(self.whole.g)
        step[self._P] = h
        return step

    @override
    def dense(self) -> Tensor:
        A, P = self.whole.operator(), self._P
        if P.ndim == 2:
            H = A.inner(P, A @ P)
        else:
            H = (A.block if self._block is None else self._block)(P.to(A.device)).detach()
        A.release()
        self.products += len(H) if self._block is None else 0
        return H.double().cpu()

    @override
    def trial(self, h: Tensor) -> float:
        return self.whole.trial(self.lift(h))

    @override
    def gradient_after(self) -> Tensor:
        return self._project(self.whole.gradient_after())

    @override
    def accept(self) -> None:
        self.whole.accept()

    @override
    def reject(self) -> None:
        self.whole.reject()
