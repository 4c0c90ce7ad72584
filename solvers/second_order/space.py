"""The Hessian in a space and in its eigenbasis there, so that any shift costs no more than a division.

The space is the whole one, by a dense Hessian, or the Krylov space of the gradient, by products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator
from landscape.spectra.krylov import Krylov
from solvers.second_order.trial_point import Move, Point


@dataclass(frozen=True)
class Space:
    """The Hessian on a space in its eigenbasis U there: U^T H U = diag(w), c = U^T g.

    Attributes:
        w, c: `(m,)` float64 on the host, w ascending.
        lift: coordinates s `(m,)` to the vector U s `(n,)`.
        image: coordinates to H U s, `(n,)`.
    """

    w: Tensor
    c: Tensor
    lift: Callable[[Tensor], Tensor]
    image: Callable[[Tensor], Tensor]

    @property
    def lowest(self) -> float:
        """The smallest eigenvalue; nan in a space without dimensions."""
        return float(self.w[0]) if len(self.w) else math.nan

    @property
    def rounding(self) -> float:
        """Of the eigenvalues."""
        return len(self.w) * torch.finfo(torch.float64).eps * float(self.w.abs().max()) if len(self.w) else 0.0

    @property
    def indefinite(self) -> bool:
        """Whether an eigenvalue is negative, beyond rounding."""
        return self.lowest < -self.rounding

    def solve(self, base: float, lam: float = 0.0) -> Tensor:
        """s with (diag(w) + base + lam) s = -c, base first so that it may cancel; 0 where c is."""
        return torch.where(self.c == 0, torch.zeros_like(self.c), -self.c / ((self.w + base) + lam))

    def newton_step(self, lam: float) -> tuple[Tensor, Move]:
        """The minimiser of g.h + h.H h / 2 + (lam + max(0, -w_1)) ||h||^2 / 2: its coordinates and the move."""
        base = max(0.0, -self.lowest) if len(self.w) else 0.0
        s = self.solve(base, lam)
        decrease = max(0.0, -0.5 * float(self.c @ s))
        return s, Move(self.lift(s), decrease, self.lowest, len(self.w), shift=base + lam, indefinite=self.indefinite)


def eigenbasis(H: Tensor) -> tuple[Tensor, Tensor]:
    """w and U of the dense matrix U diag(w) U^T. Raises `FloatingPointError` when it is not finite."""
    if not bool(torch.isfinite(H).all()):
        raise FloatingPointError("the Hessian has entries that are not finite")
    w, U = torch.linalg.eigh(0.5 * (H + H.T))
    return w, U


def whole_space(g: Tensor, H: Tensor) -> Space:
    """The whole space, by the dense matrix. Raises as `eigenbasis`."""
    w, U = eigenbasis(H)
    return Space(w, U.T @ g, lambda s: U @ s, lambda s: U @ (w * s))


def krylov_space(point: Point, A: LinearOperator, size: int) -> Space:
    """The span of g, A g, ..., A^(size - 1) g, for at most `size` products; smaller where that is invariant.

    Raises `MemoryError` when the basis does not fit the budget.
    """
    g = A.space.columns(point.g)
    needed = (min(size, A.shape[0]) + 4) * A.space.column_bytes
    if needed > A.memory:
        raise MemoryError(f"a Krylov space of {size} vectors needs {needed:,} bytes, the budget is {A.memory:,}")
    process = Krylov(A, size)
    X = process.inject(g)
    if X.shape[-1]:
        process.absorb(A @ X)
        process.advance(size - 1)
    point.products += process.size
    A.release()
    ritz = process.ritz()
    S, H, B, C = ritz.coefficients, process.H, process.B, process.pending

    def image(s: Tensor) -> Tensor:
        y = (S @ s).reshape(-1, 1)
        return (process.combine(H @ y) + (A.combine(C, B @ y) if C.shape[-1] else 0.0))[..., 0].double().cpu()

    return Space(
        ritz.values,
        S.T @ process.basis.inner(g)[:, 0],
        lambda s: process.combine((S @ s).reshape(-1, 1))[..., 0],
        image,
    )
