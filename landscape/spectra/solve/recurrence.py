"""CG and MINRES of one Lanczos process, so that neither costs the other a product.

With T the tridiagonal matrix of the process on A + damping I, x = V y is the iterate of CG where T y = ||b|| e_1, and
that of MINRES where y minimises ||b - (A + damping) V y|| (Paige and Saunders 1975). CG goes by the pivots of T, which
are the curvatures of its directions: once one is not positive, the matrix is not positive definite and MINRES goes on
alone. Each column of a block is a process of its own; they share the calls of the operator.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products, require_finite

Apply = Callable[[Tensor], Tensor]

# What a `Recurrence` has for each column, beside its lists.
_COLUMNWISE = (
    *("conjugate", "minimal", "definite", "ended", "scale"),
    *("_next", "_applied", "_before", "_beta", "_off", "_p", "_pivot", "_zeta", "_left", "_gradient"),
)


class Recurrence:
    """The process from the residuals R `(n, k)` of a start; all scalars are `(k,)` float64 on the host.

    Attributes:
        conjugate, minimal: `(n, k)`, the iterates of CG and MINRES.
        definite: where all pivots were positive, so that CG has an iterate.
        least: the least Rayleigh quotient of A (without damping) that was met; inf before the first step.
        direction: `(n,)`, the vector of it.
        scale: the largest norm of a column of T, which is no larger than that of A + damping I.
        ended: where the Krylov space is exhausted.
    """

    def __init__(self, A: LinearOperator, damping: float, R: Tensor, precondition: Apply | None) -> None:
        self.A, self.damping, self.precondition = A, damping, precondition
        k = R.shape[-1]
        self.definite = torch.ones(k, dtype=torch.bool)
        self.ended = torch.zeros(k, dtype=torch.bool)
        self.least, self.scale = float("inf"), _zeros(k)
        self._exactness = 10 * torch.finfo(A.dtype).eps + A.noise
        self.direction: Tensor | None = None
        self.conjugate, self.minimal = torch.zeros_like(R), torch.zeros_like(R)
        # of Lanczos: the next vector before it is scaled, the one before, their inner product's root
        self._next, self._applied = R, R if precondition is None else precondition(R)
        self._before, self._beta, self._off = torch.zeros_like(R), self._length(), _zeros(k)
        # of CG: the direction, its curvature, and how far x goes along it
        self._p, self._pivot, self._zeta = torch.zeros_like(R), torch.ones(k).double(), self._beta
        # of MINRES: the last two directions and rotations, what is left of the right-hand side, the residual itself
        self._w = [torch.zeros_like(R), torch.zeros_like(R)]
        self._rotations = [(torch.ones(k).double(), _zeros(k))] * 2
        self._left, self._gradient = self._beta.clone(), torch.full((k,), torch.inf, dtype=torch.float64)
        self._residual = R if precondition is not None else None
        self._first = True

    def step(self) -> None:
        """One product for each column. Raises `FloatingPointError` where it is not finite."""
        scale = torch.where(self._beta > 0, 1.0 / self._beta, 0.0)
        V, Q = (T * self._to(scale) for T in (self._applied, self._next))
        product = products(self.A, V)
        if self.damping:
            product = product + self.damping * V
        alpha = self._dot(V, product)
        require_finite(self.A, alpha)
        off = self._off
        self._next = product - Q * self._to(alpha) - self._before * self._to(off)
        self._applied = self._next if self.precondition is None else self.precondition(self._next)
        self._before, beta = Q, self._length()
        size = (alpha**2 + off**2 + beta**2).sqrt()
        self.scale = torch.maximum(self.scale, size)
        floor = torch.finfo(self.A.dtype).eps * self.scale
        beta = torch.where(beta > floor, beta, 0.0)
        self.ended |= beta == 0
        self._conjugate_gradients(V, alpha, off)
        self._minimal_residual(V, alpha, off, beta)
        self._beta = self._off = beta
        self._first = False

    def keep(self, columns: Tensor) -> None:
        """Go on with these columns only; `(j,)` indices. Those that are left out cost no more products."""
        for name in _COLUMNWISE:
            setattr(self, name, getattr(self, name)[..., columns])
        self._w = [w[..., columns] for w in self._w]
        self._rotations = [(c[columns], s[columns]) for c, s in self._rotations]
        self._residual = None if self._residual is None else self._residual[..., columns]

    def residuals(self, method: str) -> Tensor:
        """`(k,)`, the norms of the residuals of "cg" or "minres" as the recurrences have them."""
        if method == "cg":
            norm = self._dot(self._next, self._next).sqrt() if self.precondition is not None else self._beta
            return torch.where(self.ended, 0.0, norm * self._zeta.abs())
        return self._left.abs() if self._residual is None else self._dot(self._residual, self._residual).sqrt()

    def least_squares(self, tol: float) -> Tensor:
        """`(k,)` bool: the gradient of ||b - (A + damping) x|| is zero to a relative tol, whatever the norm is."""
        return self._gradient <= max(tol, self._exactness) * self.scale * self._left.abs()

    def _conjugate_gradients(self, V: Tensor, alpha: Tensor, off: Tensor) -> None:
        """T = L D L^T, one row more: x goes along p = v - l p_before, whose curvature is the pivot."""
        floor = torch.finfo(self.A.dtype).eps * self.scale
        low = torch.where(self._pivot.abs() > floor, off / self._pivot, 0.0)
        self._pivot = alpha - off * low
        self._p = V - self._p * self._to(low)
        self._note(self._p, self._pivot)
        moves = self._pivot > floor
        self.definite &= moves | (self._beta == 0)  # a column that has ended does not move any more
        along = self._zeta if self._first else -off * self._zeta
        self._zeta = torch.where(moves & self.definite, along / torch.where(moves, self._pivot, 1.0), 0.0)
        self.conjugate = self.conjugate + self._p * self._to(self._zeta)

    def _minimal_residual(self, V: Tensor, alpha: Tensor, off: Tensor, beta: Tensor) -> None:
        """T = Q R by rotations, one column more: w = (v - r2 w_before - r3 w_before_that) / r1."""
        (c1, s1), (c2, s2) = self._rotations
        r3, turned = s2 * off, c2 * off
        r2, bar = c1 * turned + s1 * alpha, c1 * alpha - s1 * turned
        self._gradient = self._left.abs() * torch.hypot(bar, c1 * beta)
        r1 = torch.hypot(bar, beta)
        c, s = (torch.where(r1 > 0, t / r1, other) for t, other in ((bar, 1.0), (beta, 0.0)))
        w = (V - self._w[0] * self._to(r2) - self._w[1] * self._to(r3)) * self._to(torch.where(r1 > 0, 1.0 / r1, 0.0))
        self.minimal = self.minimal + w * self._to(c * self._left)
        left = -s * self._left
        if self._residual is not None:
            ahead = torch.where(beta > 0, c * left / beta, 0.0)
            self._residual = self._residual * self._to(s**2) + self._next * self._to(ahead)
        self._w, self._rotations, self._left = [w, self._w[0]], [(c, s), (c1, s1)], left

    def _note(self, V: Tensor, curvatures: Tensor) -> None:
        """Keep the least Rayleigh quotient of A and its vector; given are the curvatures v . (A + damping I) v."""
        quotients = torch.where(self._beta > 0, curvatures / self._dot(V, V).clamp_min(1e-300), torch.inf)
        i = int(quotients.argmin())
        if float(quotients[i]) - self.damping < self.least:
            self.least, self.direction = float(quotients[i]) - self.damping, V[..., i].clone()

    def _length(self) -> Tensor:
        squares = self._dot(self._next, self._applied)
        require_finite(self.A, squares)
        if bool((squares < 0).any()):
            raise ValueError(f"the preconditioner is not positive definite: r . P r = {float(squares.min()):.3g}")
        return squares.sqrt()

    def _dot(self, X: Tensor, Y: Tensor) -> Tensor:
        return self.A.inner(X, Y).diagonal().clone()

    def _to(self, numbers: Tensor) -> Tensor:
        return numbers.to(device=self._next.device, dtype=self._next.dtype)


def _zeros(k: int) -> Tensor:
    return torch.zeros(k, dtype=torch.float64)
