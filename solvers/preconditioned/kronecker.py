"""A tensor and its sides: what solvers with one factor for each side of a parameter are made of.

For a tensor G of k dimensions, side i has the Gram matrix G_(i) G_(i)^T `(d_i, d_i)` of its unfolding, and a matrix M
acts on it by G x_i M. For a matrix these are G G^T, G^T G, M G and G M^T. A side longer than a limit has no factor and
stays as it is, or a diagonal one `(d_i,)`; a scalar has no side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sides(G: Tensor, limit: int) -> list[int]:
    """The dimensions that have a factor."""
    return [i for i, length in enumerate(G.shape) if length <= limit]


def gram(G: Tensor, side: int) -> Tensor:
    """G_(i) G_(i)^T."""
    unfolded = G.movedim(side, 0).reshape(G.shape[side], -1)
    return unfolded @ unfolded.T


def gram_diagonal(G: Tensor, side: int) -> Tensor:
    """The diagonal of G_(i) G_(i)^T."""
    return G.square().movedim(side, 0).reshape(G.shape[side], -1).sum(1)


def multiplied(G: Tensor, matrices: Sequence[Tensor | None], *, transposed: bool = False) -> Tensor:
    """G x_1 M_1 x_2 ... x_k M_k, or with M^T in place of M; None is the identity, a vector the diagonal of M."""
    for M in matrices:  # the first dimension goes to the end each time: after all of them the order is the old one
        if M is None or M.ndim == 1:
            G = G.movedim(0, -1) if M is None else G.movedim(0, -1) * M
        else:
            G = torch.tensordot(G, M, dims=([0], [0 if transposed else 1]))
    return G
