"""Where a step begins: the loss and its derivatives there, and the loss at trial points; here by a closure's graph."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from landscape import Hessian
from landscape.objective.weight_norm import unfused_weight_norm
from landscape.operators.linear import LinearOperator
from solvers.base import Closure, check_loss, explain_backward, to_dense


@dataclass(frozen=True)
class Move:
    """A step that is proposed; for the fields see `NewtonStep`.

    Attributes:
        h: in the coordinates of the point.
        decrease: of the model.
        length: of the step of the parameters, where it is not ||h||.
        slope: how fast the model falls along h where the step begins; None: -g.h.
        cubic: the model's term of third order at h.
        lr: the share of the solver's own step that this is.
    """

    h: Tensor
    decrease: float
    lowest: float
    size: int
    shift: float = math.nan
    hard_case: bool = False
    length: float | None = None
    slope: float | None = None
    cubic: float = 0.0
    indefinite: bool = False
    lr: float = 1.0

    def scaled(self, lr: float, g: Tensor) -> Move:
        """lr h, and what the same model promises there.

        Along t h the model falls by t s - t^2 (s - c - d) - t^3 c, with s the slope, c the cubic term and d the
        decrease at h. g: the gradient where the step begins.
        """
        if lr == 1.0:
            return self
        slope = -float(g @ self.h.double().cpu()) if self.slope is None else self.slope
        decrease = lr * slope - lr**2 * (slope - self.cubic - self.decrease) - lr**3 * self.cubic
        length = None if self.length is None else lr * self.length
        return replace(self, h=lr * self.h, decrease=decrease, length=length, lr=lr)


class Point(ABC):
    """The loss where a step begins, its derivatives there, and the loss at trial points.

    Attributes:
        loss, eps: f, and the rounding of its dtype.
        leaves: the parameters that the step is in.
        g: `(n,)` float64 on the host.
        products: with the Hessian, so far.
    """

    loss: float
    eps: float
    leaves: list[Tensor]
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
    """A point of a closure, by its graph.

    Args:
        closure: what returns the loss, the same function each time.
        leaves: the parameters.
        curvature: whether second derivatives will be asked for.
        whole: keep the parameters that the loss does not use, as coordinates with zero derivatives. They are left out
            else, so that nothing moves them.
    """

    def __init__(self, closure: Closure, leaves: list[Tensor], curvature: bool, *, whole: bool = False) -> None:
        self._closure = closure
        self._old: list[Tensor] | None = None
        self._after: Tensor | None = None
        self._A: LinearOperator | None = None
        loss = self._evaluate(closure)
        self.loss, self.eps = float(loss.detach()), torch.finfo(loss.dtype).eps
        with explain_backward():
            self.leaves = leaves if whole else _used(loss, leaves)
            if curvature and self.leaves:
                self._A = A = Hessian.from_loss(loss, self.leaves)
                self.g = A.gradient().double().cpu()
            else:
                self.g = self._gradient(loss)

    def _evaluate(self, closure: Closure) -> Tensor:
        with torch.enable_grad(), unfused_weight_norm():
            return check_loss(closure()).sum()

    def _curved(self) -> Tensor:
        """The loss whose Hessian is taken, with a new graph."""
        return self._evaluate(self._closure)

    def _gradient(self, loss: Tensor) -> Tensor:
        if not self.leaves:
            return torch.zeros(0, dtype=torch.float64)
        pieces = torch.autograd.grad(loss, self.leaves, allow_unused=True, materialize_grads=True)
        return torch.cat([to_dense(g).reshape(-1).double().cpu() for g in pieces])

    @override
    def operator(self) -> LinearOperator:
        # by the first graph; by a new one once a trial point has changed the parameters
        if self._A is None:
            self.reject()
            self._A = Hessian.from_loss(self._curved(), self.leaves)
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
        self._old = [p.detach().clone() for p in self.leaves]
        for p, piece in zip(self.leaves, h.split([p.numel() for p in self.leaves]), strict=True):
            p.add_(piece.reshape(p.shape).to(device=p.device, dtype=p.dtype))
        with torch.no_grad():
            return float(self._closure())

    @override
    def gradient_after(self) -> Tensor:
        if self._after is None:
            with explain_backward():
                self._after = self._gradient(self._evaluate(self._closure))
        return self._after

    @override
    def accept(self) -> None:
        self._old = None

    @override
    def reject(self) -> None:
        self._after = None
        if self._old is not None:
            for p, old in zip(self.leaves, self._old, strict=True):
                p.copy_(old)
            self._old = None


def _used(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """The leaves that the graph of the loss reaches."""
    reached: set[Tensor] = set()
    seen, stack = set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            reached.add(node.variable)
        stack.extend(following for following, _ in node.next_functions)
    return [p for p in leaves if p in reached or p is loss]
