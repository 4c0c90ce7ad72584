"""How many directions a matrix has, from its singular values s: its effective and stable rank, and its nuclear norm.

    effective rank (Roy and Vetterli, EUSIPCO 2007)   exp(-sum p log p), p = s / sum s
    the same of squares, "squared"                    exp(-sum p log p), p = s^2 / sum s^2: of the Gram matrix
    stable rank                                       ||A||_F^2 / ||A||_2^2 = sum s^2 / max s^2
    nuclear norm                                      sum s

1 <= stable rank <= squared effective rank <= effective rank <= rank. Singular values are the roots of the eigenvalues
of the smaller Gram matrix, in float64: exact, but for those below a floor that squaring costs, which are taken for 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.precision import accurate


@dataclass(frozen=True)
class MatrixRanks:
    """Ranks and norms of one matrix; all 0 for a matrix of zeros.

    Attributes:
        rows, columns: its shape.
        effective_rank: exp of the entropy of s / sum s (Roy and Vetterli).
        effective_rank_squared: the same of s^2, smaller.
        stable_rank: ||A||_F^2 / ||A||_2^2.
        nuclear_norm: sum of the singular values.
        largest: the spectral norm.
        floor: singular values below are not told from 0 by rounding, and are taken for 0.
    """

    rows: int
    columns: int
    effective_rank: float
    effective_rank_squared: float
    stable_rank: float
    nuclear_norm: float
    largest: float
    floor: float


def singular_values(A: Tensor) -> tuple[Tensor, float]:
    """Singular values of a matrix `(m, n)`, `(min(m, n),)` float64 on the host, largest first; and their floor.

    Those below the floor, sqrt(min(m, n) eps) of the largest with eps = 2.2e-16, are 0.

    Raises:
        ValueError: no matrix, or entries that are not finite.

    Example:
        >>> import torch
        >>> from landscape.representation import singular_values
        >>> values, floor = singular_values(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
        >>> values.tolist(), floor < 1e-6
        ([4.0, 3.0], True)
    """
    if A.ndim != 2:
        raise ValueError(f"a matrix has two dimensions, not the shape {tuple(A.shape)}: reshape it to (rows, columns)")
    wide = accurate(A.detach())
    return of_gram(wide @ wide.mT if A.shape[0] <= A.shape[1] else wide.mT @ wide)


def of_gram(G: Tensor) -> tuple[Tensor, float]:
    """Singular values of A from A A^T or A^T A, whichever is the smaller, and their floor; as `singular_values`."""
    if not bool(torch.isfinite(G).all()):
        raise ValueError("there are entries that are not finite: the network has diverged")
    s = torch.linalg.eigvalsh(G).flip(0).clamp_min(0.0).sqrt().cpu()
    floor = math.sqrt(len(s) * torch.finfo(torch.float64).eps) * float(s[0]) if len(s) else 0.0
    return s.masked_fill(s < floor, 0.0), floor


def effective_rank(s: Tensor, *, squared: bool = False) -> float:
    """exp of the entropy of the singular values s `(k,)`, each divided by their sum (Roy and Vetterli, 2007).

    `squared`: of s^2, which weights large ones more. 0.0 where all are 0.

    Example:
        >>> import torch
        >>> from landscape.representation import effective_rank
        >>> s = torch.tensor([2.0, 2.0, 1.0, 0.0])
        >>> round(effective_rank(s), 3), round(effective_rank(s, squared=True), 3)
        (2.872, 2.625)
    """
    p = s.double() ** (2 if squared else 1)
    total = float(p.sum())
    return math.exp(float(torch.special.entr(p / total).sum())) if total > 0 else 0.0


def stable_rank(s: Tensor) -> float:
    """sum s^2 / max s^2 of singular values s `(k,)`; 0.0 where all are 0.

    Example:
        >>> import torch
        >>> from landscape.representation import stable_rank
        >>> stable_rank(torch.tensor([2.0, 2.0, 1.0, 0.0]))
        2.25
    """
    squares = s.double().square()
    largest = float(squares.max()) if len(squares) else 0.0
    return float(squares.sum()) / largest if largest > 0 else 0.0


def matrix_ranks(A: Tensor) -> MatrixRanks:
    """All ranks of a matrix `(m, n)`, such as a layer's weight; what has more dimensions is to be reshaped.

    Raises:
        ValueError: as `singular_values`.

    Example:
        >>> import torch
        >>> from landscape.representation import matrix_ranks
        >>> found = matrix_ranks(torch.diag(torch.tensor([2.0, 2.0, 1.0])))
        >>> found.stable_rank, found.nuclear_norm, round(found.effective_rank, 2)
        (2.25, 5.0, 2.87)
    """
    return ranks_of(*singular_values(A), A.shape[0], A.shape[1])


def ranks_of(s: Tensor, floor: float, rows: int, columns: int) -> MatrixRanks:
    """The ranks of a matrix of that shape from its singular values."""
    largest = float(s[0]) if len(s) else 0.0
    both = effective_rank(s), effective_rank(s, squared=True)
    return MatrixRanks(rows, columns, *both, stable_rank(s), float(s.sum()), largest, floor)
