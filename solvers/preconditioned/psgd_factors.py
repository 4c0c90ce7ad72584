"""The factors of PSGD's preconditioner P = Q^T Q, Q the Kronecker product of one factor for each side; how it is fit.

A pair (v, h) lowers h^T P h + v^T P^(-1) v (arXiv 1512.04202, 2402.11858): P E[h h^T] P = E[v v^T] where it is least in
mean. With T_i[X] the Gram matrix of X on side i, mu the rate and L a running bound of ||T + S||:

    "triangular"   Q_i <- (I - (mu / L) triu(T - S)) Q_i                   T = T_i[Q h],  S = T_i[Q^(-T) v]
    "dense"        Q_i <- (I - E) Q_i (I - E),  E = (mu / 2 L) (T - S)     T = T_i[P h],  S = T_i[v]

The first moves in the group of upper triangular matrices (dQ = E Q), the second among the symmetric positive definite
ones, without a solve. ||T - S|| <= L and mu < 1 keep both where they are. Where v has not been drawn S is its mean over
normal v. A diagonal factor `(d_i,)` has the diagonals of T and S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.preconditioned.kronecker import gram, gram_diagonal, multiplied, sides

Form = Literal["triangular", "dense"]
BALANCED = 100  # fits from one balancing of the factors' sizes to the next


def identities(G: Tensor, scale: float, limit: int) -> dict[str, Any]:
    """The state of factors whose product is scale I: diagonal on sides longer than `limit`, and of length 1."""
    share, kept = scale ** (1 / max(G.ndim, 1)), sides(G, limit)
    factors = []
    for i, length in enumerate(G.shape):
        whole = i in kept and length > 1
        factors.append(share * (torch.eye(length).to(G) if whole else torch.ones(length).to(G)))
    return {"factors": factors, "bounds": [G.new_zeros(()) for _ in factors], "fits": 0}


def preconditioned(G: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """P G, for G with a dimension for each factor."""
    return multiplied(multiplied(G, factors), factors, transposed=True)


def fit_factors(state: dict[str, Any], h: Tensor, v: Tensor | None, *, rate: float, damping: float, form: Form) -> None:
    """One step of the factors for a pair; v None: its mean over normal v, beside gradients h.

    `damping` is that of h: h + damping v, so that Newton's P is that of H + damping I; without v the mean over noise of
    that size in h, so that P E[h h^T + damping^2 I] P = I.
    """
    factors: list[Tensor] = state["factors"]
    maps = factors if form == "triangular" else [_gram_of(Q) for Q in factors]
    if v is not None and damping:
        h = h + damping * v
    seen = _moments(multiplied(h, maps), factors)
    if v is None and damping:
        seen = [T + damping**2 * noise for T, noise in zip(seen, _mean_moments(maps), strict=True)]
    if v is not None:
        expected = _moments(v if form == "dense" else _solved(v, factors), factors)
    elif form == "dense":
        expected = [_identity(Q, h.numel() / len(Q)) for Q in factors]
    else:
        expected = _mean_moments([_inverse(Q) for Q in factors])
    for i, (Q, T, S) in enumerate(zip(factors, seen, expected, strict=True)):
        bound = _bound(T + S)
        L = state["bounds"][i] = torch.maximum(state["bounds"][i].to(bound).lerp(bound, 0.1), bound)
        factors[i] = _moved(Q, (T - S) * (rate / L.clamp_min(torch.finfo(L.dtype).tiny)), form)
    state["fits"] += 1
    if state["fits"] % BALANCED == 0:
        _balance(factors)


def _moved(Q: Tensor, E: Tensor, form: Form) -> Tensor:
    if Q.ndim == 1:
        return Q * (1.0 - E) if form == "triangular" else Q * (1.0 - 0.5 * E).square()
    if form == "triangular":
        return Q - torch.triu(E) @ Q
    half = Q - 0.5 * E @ Q
    whole = half - 0.5 * half @ E
    return 0.5 * (whole + whole.mT)


def _moments(X: Tensor, factors: Sequence[Tensor]) -> list[Tensor]:
    """T_i[X] of each side, its diagonal where the factor is one."""
    return [gram_diagonal(X, i) if Q.ndim == 1 else gram(X, i) for i, Q in enumerate(factors)]


def _mean_moments(maps: Sequence[Tensor]) -> list[Tensor]:
    """The mean of T_i[M X] over independent normal entries of X: M_i M_i^T times ||M_j||_F^2 of all other sides."""
    sizes = [M.square().sum() for M in maps]
    found = []
    for i, M in enumerate(maps):
        others = math.prod(sizes[:i] + sizes[i + 1 :], start=torch.ones_like(sizes[i]))
        found.append(others * (M.square() if M.ndim == 1 else M @ M.mT))
    return found


def _gram_of(Q: Tensor) -> Tensor:
    return Q.square() if Q.ndim == 1 else Q.mT @ Q


def _identity(Q: Tensor, scale: float) -> Tensor:
    return torch.full_like(Q, scale) if Q.ndim == 1 else scale * torch.eye(len(Q)).to(Q)


def _inverse(Q: Tensor) -> Tensor:
    """Q^(-T) of a diagonal or an upper triangular matrix."""
    return 1.0 / Q if Q.ndim == 1 else torch.linalg.solve_triangular(Q.mT, torch.eye(len(Q)).to(Q), upper=False)


def _solved(V: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Q^(-T) V of upper triangular factors."""
    for Q in factors:
        if Q.ndim == 1:
            V = V.movedim(0, -1) / Q
        else:
            unfolded = torch.linalg.solve_triangular(Q.mT, V.reshape(len(Q), -1), upper=False)
            V = unfolded.reshape(V.shape).movedim(0, -1)
    return V


def _bound(T: Tensor) -> Tensor:
    """At least the largest eigenvalue, at most d^(1/4) times it: the norm of Schatten with 4; exact for diagonals."""
    if T.ndim == 1:
        return T.amax()
    size = torch.linalg.matrix_norm(T).clamp_min(torch.finfo(T.dtype).tiny)
    unit = T / size  # whose square neither overflows nor vanishes
    return size * torch.linalg.matrix_norm(unit @ unit).sqrt()


def _balance(factors: list[Tensor]) -> None:
    """Give all factors the same largest entry; their product stays."""
    largest = torch.stack([Q.abs().amax() for Q in factors])
    shares = (largest.log().mean() - largest.log()).exp()
    for i, share in enumerate(shares):
        factors[i] = factors[i] * share
