"""Where a step begins: the loss and its derivatives there, and what becomes of it at trial points."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from landscape import Hessian
from landscape.operators.linear import LinearOperator
from solvers.base import Closure, checked_loss, explained


@runtime_checkable
class BlockModel(Protocol):
    """A loss that knows its own blocks, such as `solvers.linear_model`: no graph is built."""

    def value(self) -> float:
        """f as it stands."""
        ...

    def blocks(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(g_S, H_SS)."""
        ...

    def trial(self, indices: Tensor, h: Tensor) -> float:
        """f after a step in S, which is not made."""
        ...

    def trial_gradient(self) -> Tensor:
        """g_S at the last trial point."""
        ...

    def move(self) -> None:
        """Make the step that was tried last."""
        ...


class Point(Protocol):
    """The loss where a step begins, its derivatives there, and what becomes of it at trial points.

    Attributes:
        loss, eps: f, and the rounding of its dtype.
        g: `(n,)` float64 on the host.
        products: with the Hessian, so far.
    """

    loss: float
    eps: float
    g: Tensor
    products: int

    def operator(self) -> LinearOperator:
        """The Hessian where the step began, also after trial points."""
        ...

    def dense(self) -> Tensor:
        """The Hessian, `(n, n)` float64 on the host; n products."""
        ...

    def trial(self, h: Tensor) -> float:
        """f after the step h, which is made on trial."""
        ...

    def gradient_after(self) -> Tensor:
        """The gradient at the trial point, as `g`."""
        ...

    def accept(self) -> None:
        """The trial point is the new one."""
        ...

    def reject(self) -> None:
        """Back to where the step began, every bit."""
        ...


class GraphPoint:
    """A point of a closure, by its graph."""

    def __init__(self, closure: Closure, leaves: list[Tensor], curvature: bool) -> None:
        self._closure, self._leaves = closure, leaves
        self._old: list[Tensor] | None = None
        self._after: Tensor | None = None
        self.products = 0
        with torch.enable_grad():
            loss = checked_loss(closure)
        self.loss, self.eps = float(loss.detach()), torch.finfo(loss.dtype).eps
        self._A: LinearOperator | None = None
        if curvature:
            with torch.enable_grad():
                A = Hessian.from_loss(loss.sum(), leaves)
            with explained():
                self.g = A.gradient().double().cpu()
            self._A = A
        else:
            self.g = self._gradient(loss)

    def operator(self) -> LinearOperator:
        """By the first graph; by a new one once a trial point has changed the parameters."""
        if self._A is None:
            self.reject()
            with torch.enable_grad():
                self._A = Hessian.from_loss(checked_loss(self._closure).sum(), self._leaves)
        return self._A

    def dense(self) -> Tensor:
        """See `Point`."""
        A = self.operator()
        H = A.to_dense().double().cpu()
        self.products += len(H)
        A.release()
        return H

    def trial(self, h: Tensor) -> float:
        """See `Point`."""
        self.reject()
        self._A = None  # its graph is of no use once the parameters have changed
        self._old = [p.detach().clone() for p in self._leaves]
        for p, piece in zip(self._leaves, h.split([p.numel() for p in self._leaves]), strict=True):
            p.add_(piece.reshape(p.shape).to(device=p.device, dtype=p.dtype))
        with torch.no_grad():
            return float(self._closure())

    def gradient_after(self) -> Tensor:
        """See `Point`."""
        if self._after is None:
            with torch.enable_grad():
                loss = checked_loss(self._closure)
            self._after = self._gradient(loss)
        return self._after

    def _gradient(self, loss: Tensor) -> Tensor:
        with torch.enable_grad(), explained():
            pieces = torch.autograd.grad(loss.sum(), self._leaves, allow_unused=True, materialize_grads=True)
        return torch.cat([g.reshape(-1).double().cpu() for g in pieces])

    def accept(self) -> None:
        """See `Point`."""
        self._old = None

    def reject(self) -> None:
        """See `Point`."""
        self._after = None
        if self._old is not None:
            for p, old in zip(self._leaves, self._old, strict=True):
                p.copy_(old)
            self._old = None


class BlockPoint:
    """A point of a model that knows its blocks, such as `solvers.linear_model`: no products are needed."""

    def __init__(self, model: BlockModel, leaves: list[Tensor], curvature: bool) -> None:
        self._model, self.products = model, 0
        self._all = torch.arange(sum(p.numel() for p in leaves))
        self._H: Tensor | None = None
        if curvature or not callable(model):
            g, self._H = model.blocks(self._all)
            self.g = g.double().cpu()
        else:
            self.g = GraphPoint(model, leaves, False).g
        self.loss, self.eps = model.value(), torch.finfo(torch.float64).eps

    def operator(self) -> LinearOperator:
        """Not needed where the dense matrix is at hand."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """See `Point`."""
        assert self._H is not None
        return self._H.double().cpu()

    def trial(self, h: Tensor) -> float:
        """See `Point`; the model's weight stays."""
        return self._model.trial(self._all, h)

    def gradient_after(self) -> Tensor:
        """See `Point`."""
        return self._model.trial_gradient().double().cpu()

    def accept(self) -> None:
        """See `Point`."""
        self._model.move()

    def reject(self) -> None:
        """Nothing has moved."""
