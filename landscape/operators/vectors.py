"""What the algorithms share: seeds, chunks of products, orthonormal bases, error factors.

Vectors are touched only through the operator's helpers, sums, scalings and slices of the last dimension, so
they may be sharded over ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, not_finite


def as_block(A: LinearOperator, v: Tensor) -> Tensor:
    """A vector or a block of vectors as a block of columns in the operator's dtype and device.

    Raises `ValueError` when the shape is not that of the operator's vectors.
    """
    template = A.unit([0])
    v = torch.as_tensor(v).detach()
    block = v.unsqueeze(-1) if v.ndim == template.ndim - 1 else v
    if block.ndim != template.ndim or block.shape[:-1] != template.shape[:-1]:
        raise ValueError(
            f"a vector for this operator has shape {tuple(template.shape[:-1])} or "
            f"{(*template.shape[:-1], 'k')}, not {tuple(v.shape)}"
        )
    return block.to(device=template.device, dtype=template.dtype)


def column_bytes(X: Tensor) -> int:
    """Bytes of one column of a block on this rank."""
    return max(1, X[..., :1].numel() * X.element_size())


def orthonormal(A: LinearOperator, X: Tensor, against: Tensor | None = None, floor: float = 0.0) -> Tensor:
    """An orthonormal basis of the columns of X, orthogonal to the orthonormal block `against`: (n, r), r <= k.

    Directions in which X has no more than `floor` (a norm) are left out. Gram matrices lose half the digits,
    so directions are taken in tiers: those within eps^0.4 of the largest first, then the rest is projected
    and measured anew. Every tier is orthogonalised twice (Giraud, Langou, Rozloznik 2005).
    """
    eps = torch.finfo(X.dtype).eps
    bases = [against] if against is not None and against.shape[-1] else []
    found: list[Tensor] = []
    X = _project(A, X, [*bases, *found])
    while X.shape[-1]:
        X = _project(A, X, [*bases, *found])
        gram = A.inner(X, X)
        if not bool(torch.isfinite(gram).all()):
            raise not_finite(A)
        squares, U = torch.linalg.eigh(gram)
        top = float(squares[-1])
        if not top > floor**2:
            break
        keep = (squares > eps**0.8 * top) & (squares > floor**2)
        V = A.combine(X, U[:, keep] / squares[keep].sqrt())
        found.append(_polish(A, V, [*bases, *found]))
        if bool(keep.all()):
            break
        X = _project(A, A.combine(X, U[:, ~keep]), [found[-1]])
    return torch.cat(found, dim=-1) if found else X[..., :0]


def _project(A: LinearOperator, X: Tensor, bases: list[Tensor]) -> Tensor:
    for Q in bases:
        X = X - A.combine(Q, A.inner(Q, X))
    return X


def _polish(A: LinearOperator, V: Tensor, bases: list[Tensor]) -> Tensor:
    """Second pass for a nearly orthonormal V: project again and multiply by (V^T V)^(-1/2)."""
    V = _project(A, V, bases)
    squares, U = torch.linalg.eigh(A.inner(V, V))
    return A.combine(V, (U / squares.clamp(min=1e-30).sqrt()) @ U.T)
