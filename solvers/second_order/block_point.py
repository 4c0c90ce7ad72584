"""A point of a model that knows its own blocks: no graph is built."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.linear import LinearOperator
from landscape.operators.matrix import MatrixOperator
from solvers.second_order.trial_point import Point


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


@runtime_checkable
class ProductModel(BlockModel, Protocol):
    """A `BlockModel` that also gives gradients without blocks, and products with its whole Hessian."""

    def gradient(self, indices: Tensor) -> Tensor:
        """g_S."""

    def product(self, V: Tensor) -> Tensor:
        """H V, `(n, k)`."""


class _ModelHessian(LinearOperator):
    """The Hessian of such a model, where it stands."""

    def __init__(self, model: ProductModel, n: int, like: Tensor) -> None:
        super().__init__(n, like.dtype, like.device)
        self._model = model

    @override
    def _matmat(self, V: Tensor) -> Tensor:
        return self._model.product(V)


class BlockPoint(Point):
    """A point of a model that knows its blocks, in the coordinates S: no products are needed.

    With the gradient given, the model is not asked for its block, and there is no `dense`.
    """

    def __init__(
        self, model: BlockModel, leaves: list[Tensor], indices: Tensor, gradient: Tensor | None = None
    ) -> None:
        self._model, self.leaves, self._S = model, leaves, indices
        if gradient is None:
            gradient, self._H = model.blocks(indices)
        self.g = gradient.double().cpu()
        self.loss, self.eps = model.value(), torch.finfo(torch.float64).eps

    @override
    def operator(self) -> LinearOperator:
        """The Hessian on all coordinates, for a point in all of them."""
        if isinstance(self._model, ProductModel):
            return _ModelHessian(self._model, len(self._S), self.leaves[0])
        return MatrixOperator(self.dense())

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


def whole_point(model: BlockModel, leaves: list[Tensor]) -> BlockPoint:
    """The point in all coordinates: no block is made where the model gives products."""
    indices = torch.arange(sum(p.numel() for p in leaves))
    return BlockPoint(model, leaves, indices, model.gradient(indices) if isinstance(model, ProductModel) else None)
