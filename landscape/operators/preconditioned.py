"""A curvature matrix as a diagonally preconditioned method sees it: D^(1/2) A D^(1/2), similar to D A."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.operators.linear import CombinedOperator, LinearOperator


class Preconditioned(CombinedOperator):
    """D^(1/2) A D^(1/2), `(n, n)`, symmetric, with the eigenvalues of D A.

    `scale` is the diagonal of D, shaped as one vector of A (`(n,)`), zero where a coordinate is held fixed. Its
    square root is kept in A's dtype. `noise` is A's own: products with a very uneven D may err by more of their norm.

    Raises `ValueError` for a scale that is misshapen, negative or not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.sharpness import Preconditioned
        >>> A = MatrixOperator(torch.tensor([[4.0, 1.0], [1.0, 2.0]]))
        >>> Preconditioned(A, torch.tensor([1.0, 0.25])).to_dense()
        tensor([[4.0000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(self, operator: LinearOperator, scale: Tensor) -> None:
        super().__init__(operator)
        scale = torch.as_tensor(scale).detach()
        if scale.shape != self.space.shape:
            raise ValueError(f"scale has the shape of a vector, {self.space.shape}, not {tuple(scale.shape)}")
        if not bool(torch.isfinite(scale).all()) or bool((scale < 0).any()):
            raise ValueError("scale must be finite and not negative: it is the inverse of a preconditioner")
        self.scale = scale.to(device=self.device)
        self._root = self.scale.sqrt().to(self.dtype).unsqueeze(-1)
        self.positive_semidefinite = operator.positive_semidefinite

    def _matmat(self, V: Tensor) -> Tensor:
        return self._root * (self._parts[0] @ (self._root * V))

    def restrict(self, names: Iterable[str] | str) -> LinearOperator:
        """The diagonal block of the named parameters; for the operators of an objective."""
        part = self._parts[0].restrict([names] if isinstance(names, str) else names)
        whole, inner = (getattr(A, "objective", None) for A in (self._parts[0], part))
        if not isinstance(whole, Objective) or not isinstance(inner, Objective):
            raise TypeError(f"{type(self._parts[0]).__name__} has no named parameters to restrict the scale to")
        return Preconditioned(part, torch.cat([self.scale[whole.slices[name]] for name in inner.names]))


class DiagonalOperator(LinearOperator):
    """diag(d) for a vector d `(n,)`: different weight decays as a part of the curvature."""

    def __init__(self, diagonal: Tensor) -> None:
        super().__init__(diagonal.shape[0], diagonal.dtype, diagonal.device)
        self.diagonal = diagonal
        self.positive_semidefinite = bool((diagonal >= 0).all())

    def _matmat(self, V: Tensor) -> Tensor:
        return self.diagonal.unsqueeze(-1) * V
