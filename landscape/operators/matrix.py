"""A dense matrix as an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.memory import Memory
from landscape.operators.linear import LinearOperator


class MatrixOperator(LinearOperator):
    """A dense symmetric matrix `(n, n)` as an operator.

    Raises `ValueError` when the matrix is not square, not finite or not symmetric to rounding.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> A = MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> (A + 0.5 * A) @ torch.ones(2)
        tensor([4.5000, 4.5000])
    """

    def __init__(self, A: Tensor | np.ndarray[Any, Any], *, memory: Memory = "auto") -> None:
        A = torch.as_tensor(A).detach()
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise ValueError(f"a matrix operator needs a square matrix, not shape {tuple(A.shape)}")
        if A.is_complex():
            raise TypeError("a matrix operator needs a real matrix")
        A = A if A.dtype == torch.float64 else A.to(torch.float32)
        if not bool(torch.isfinite(A).all()):
            raise ValueError("the matrix has entries that are not finite")
        asymmetry, largest = (float(X.abs().max()) if X.numel() else 0.0 for X in (A - A.T, A))
        if asymmetry > 1e3 * torch.finfo(A.dtype).eps * largest:
            raise ValueError(f"the matrix is not symmetric: max |A - A^T| = {asymmetry:.3g}; pass (A + A.T) / 2")
        super().__init__(A.shape[0], A.dtype, A.device, memory=memory)
        self._matrix = A

    def _matmat(self, V: Tensor) -> Tensor:
        return self._matrix @ V
