"""Where a step begins: the loss and its derivatives there, and the loss at trial points.

By a closure's graph, by a model that knows its own blocks, or either of them seen in a subspace.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from landscape import Hessian
from landscape.operators.linear import LinearOperator
from solvers.base import Closure, closure_loss, explain_backward


@runtime_checkable
class BlockModel(Protocol):
    """A loss that knows its own blocks, such as `solvers.linear_model`: no graph is built."""

    def value(self) -> float:
        """f as it stands."""

    def blocks(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(g_S, H_SS)."""

    def trial(self, indices: Tensor, h: Tensor) -> float:
        """f after a step in S, which is not made."""

    def trial_gradient(self) -> Tensor:
        """g_S at the last trial point."""

    def move(self) -> None:
        """Make the step that was tried last."""


@dataclass(frozen=True)
class Move:
    """A step that is proposed; for the fields see `NewtonStep`.

    Attributes:
        h: in the coordinates of the point.
        decrease: of the model.
        length: of the step of the parameters, where it is not ||h||.
    """

    h: Tensor
    decrease: float
    lowest: float
    size: int
    shift: float = math.nan
    hard_case: bool = False
    length: float | None = None


class Point(ABC):
    """The loss where a step begins, its derivatives there, and the loss at trial points.

    Attributes:
        loss, eps: f, and the rounding of its dtype.
        g: `(n,)` float64 on the host.
        products: with the Hessian, so far.
    """

    loss: float
    eps: float
    g: Tensor
    products: int = 0

    def operator(self) -> LinearOperator:
        """The Hessian where the step began, also after trial points; only a `GraphPoint` has it."""
        raise NotImplementedError

    @abstractmethod
    def dense(self) -> Tensor:
        """The Hessian, `(n, n)` float64 on the host; n products."""

    @abstractmethod
    def trial(self, h: Tensor) -> float:
        """f after the step h, which is made on trial."""

    @abstractmethod
    def gradient_after(self) -> Tensor:
        """The gradient at the trial point, as `g`."""

    @abstractmethod
    def accept(self) -> None:
        """The trial point is the new one."""

    @abstractmethod
    def reject(self) -> None:
        """Back to where the step began, every bit."""


class GraphPoint(Point):
    """A point of a closure, by its graph; `curvature` says whether second derivatives will be asked for."""

    def __init__(self, closure: Closure, leaves: list[Tensor], curvature: bool) -> None:
        self._closure, self._leaves = closure, leaves
        self._old: list[Tensor] | None = None
        self._after: Tensor | None = None
        loss = self._evaluate()
        self.loss, self.eps = float(loss.detach()), torch.finfo(loss.dtype).eps
        self._A = Hessian.from_loss(loss, leaves) if curvature else None
        with explain_backward():
            self.g = self._gradient(loss) if self._A is None else self._A.gradient().double().cpu()

    def _evaluate(self) -> Tensor:
        with torch.enable_grad():
            return closure_loss(self._closure).sum()

    def _gradient(self, loss: Tensor) -> Tensor:
        pieces = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
        return torch.cat([g.reshape(-1).double().cpu() for g in pieces])

    @override
    def operator(self) -> LinearOperator:
        # by the first graph; by a new one once a trial point has changed the parameters
        if self._A is None:
            self.reject()
            self._A = Hessian.from_loss(self._evaluate(), self._leaves)
        return self._A

    @override
    def dense(self) -> Tensor:
        A = self.operator()
        H = A.to_dense().double().cpu()
        self.products += len(H)
        A.release()
        return H

    @override
    def trial(self, h: Tensor) -> float:
        self.reject()
        self._A = None  # its graph is of no use once the parameters have changed
        self._old = [p.detach().clone() for p in self._leaves]
        for p, piece in zip(self._leaves, h.split([p.numel() for p in self._leaves]), strict=True):
            p.add_(piece.reshape(p.shape).to(device=p.device, dtype=p.dtype))
        with torch.no_grad():
            return float(self._closure())

    @override
    def gradient_after(self) -> Tensor:
        if self._after is None:
            with explain_backward():
                self._after = self._gradient(self._evaluate())
        return self._after

    @override
    def accept(self) -> None:
        self._old = None

    @override
    def reject(self) -> None:
        self._after = None
        if self._old is not None:
            for p, old in zip(self._leaves, self._old, strict=True):
                p.copy_(old)
            self._old = None


class BlockPoint(Point):
    """A point of a model that knows its blocks, in the coordinates S: no products are needed.

    With the gradient given, the model is not asked for its block, and there is no `dense`.
    """

    def __init__(self, model: BlockModel, indices: Tensor, gradient: Tensor | None = None) -> None:
        self._model, self._S = model, indices
        if gradient is None:
            gradient, self._H = model.blocks(indices)
        self.g = gradient.double().cpu()
        self.loss, self.eps = model.value(), torch.finfo(torch.float64).eps

    @override
    def dense(self) -> Tensor:
        return self._H.double().cpu()

    @override
    def trial(self, h: Tensor) -> float:
        return self._model.trial(self._S, h)  # the model's weight stays

    @override
    def gradient_after(self) -> Tensor:
        return self._model.trial_gradient().double().cpu()

    @override
    def accept(self) -> None:
        self._model.move()

    @override
    def reject(self) -> None:
        pass  # nothing has moved


class SubspacePoint(Point):
    """A point seen in a subspace: g, the Hessian and steps are in the coordinates of its directions.

    Args:
        point: in the whole space.
        directions: indices of coordinates `(tau,)`, or vectors `(n, tau)`.
        block: indices -> H_SS, instead of tau products.
    """

    def __init__(self, point: GraphPoint, directions: Tensor, block: Callable[[Tensor], Tensor] | None = None) -> None:
        self.whole, self._block, self._P = point, block, directions
        self.loss, self.eps = point.loss, point.eps
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
