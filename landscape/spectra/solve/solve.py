"""x with (A + damping I) x = b, whose residual is what it says: by CG while that is possible, else by MINRES."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products, require_finite
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import Measured, carries_check
from landscape.spectra.solve.recurrence import Apply, Recurrence

Method = Literal["auto", "cg", "minres"]
_FLAT = 0.1  # of tol: where the gradient of the residual norm is so small, rounding lets no x make that norm smaller


@dataclass(frozen=True)
class Solution(Measured):
    """A solution of (A + damping I) x = b, or the best that was found.

    Attributes:
        x: `(n,)` or `(n, k)`, as b, in the operator's dtype on its device.
        residual: `(k,)` float64 on the host, or a number for one b: ||(A + damping) x - b|| / ||b||, from a product
            with the x that is returned.
        error: as `residual`: how far rounding and noise may have taken it from its true value.
        converged: residual and error are together within tol, for every b.
        matvecs: products made, those that the residuals were computed with included.
        curvature: the least Rayleigh quotient of A that was met, an upper bound of its smallest eigenvalue; None where
            no step was made.
        direction: `(n,)`, the vector of it.
        damping: that was asked for.
        method: "cg" or "minres", by which x was found.
    """

    x: Tensor = field(repr=False)
    residual: float | Tensor
    error: float | Tensor
    converged: bool
    matvecs: int
    curvature: float | None
    direction: Tensor | None = field(repr=False)
    damping: float
    method: str

    @property
    def indefinite(self) -> bool:
        """A + damping I was seen not to be positive definite: a larger damping than -curvature is needed for that."""
        return self.curvature is not None and self.curvature + self.damping <= 0

    def __str__(self) -> str:
        worst = float(torch.as_tensor(self.residual).max())
        state = "" if self.converged else ", not converged"
        parts = [f"residual {worst:.2g} by {self.method} ({self.matvecs} products{state})"]
        unknown = float(torch.as_tensor(self.error).max())
        if not self.converged and unknown > 0.1 * worst:
            parts.append(f"in this precision a residual is known to {unknown:.1g} only")
        if self.indefinite:
            parts.append(
                f"A + {self.damping:g} I is not positive definite: a direction of curvature {self.curvature:.3g} was "
                f"met, so that only a damping above {-float(self.curvature or 0.0):.3g} could make it so"
            )
        return "; ".join([*parts, *self._remarks()])


@carries_check
def solve(
    A: LinearOperator,
    b: Tensor | np.ndarray[Any, Any],
    *,
    damping: float = 0.0,
    method: Method = "auto",
    preconditioner: LinearOperator | Tensor | None = None,
    tol: float = 1e-6,
    max_matvecs: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve (A + damping I) x = b for one b `(n,)` or a block `(n, k)`, each column by a process of its own.

    While all pivots of the Lanczos process are positive the iterate of CG is taken, else that of MINRES of the same
    process. What recurrences say of their residuals is not believed: before it is said that x has converged, the
    residual is computed anew, and the process begins again from x where it is larger, as long as that helps.

    Args:
        damping: added to the diagonal; a negative one is possible.
        method: "cg" stops where the matrix is seen to be indefinite; "minres" takes no iterate of CG.
        preconditioner: positive definite, near the inverse of A + damping I: an operator, whose products are taken; or
            an estimate of the diagonal of A `(n,)`, which enters as 1 / (|d| + damping).
        tol: of ||(A + damping) x - b|| / ||b||. What rounding allows is about eps times the condition number.
        max_matvecs: default max(1000, 4 n) for each column.
        x0: where to begin, as b; it costs a product.
        callback: `callback(matvecs, planned, estimate)` after each step, the estimate being the residual that the
            recurrences have; True stops with the best that is there.

    Raises:
        ValueError: b, x0 or a diagonal of another shape, b not finite, a tol that is not positive, a preconditioner
            that is not positive definite.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import solve
        >>> A = MatrixOperator(torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64))
        >>> found = solve(A, torch.tensor([1.0, 2.0]))
        >>> found.x.round(decimals=4).tolist(), found.converged, found.matvecs
        ([0.0909, 0.6364], True, 3)
    """
    if not tol > 0 or method not in ("auto", "cg", "minres"):
        raise ValueError(f'tol is positive and method "auto", "cg" or "minres", not {tol} and {method!r}')
    B = A.space.columns(b)
    try:
        return _Search(A, B, damping, method, _applied(A, preconditioner, damping), tol, callback).run(
            x0, max_matvecs, single=np.ndim(b) == len(A.space.shape)
        )
    finally:
        A.release()


class _Search:
    """Rounds of the process, each from the best x so far."""

    def __init__(
        self,
        A: LinearOperator,
        B: Tensor,
        damping: float,
        method: Method,
        precondition: Apply | None,
        tol: float,
        callback: Callback | None,
    ) -> None:
        self.A, self.B, self.damping, self.method, self.tol = A, B, damping, method, tol
        self.precondition, self.callback = precondition, callback
        self.start = A.matvecs
        self.norms = A.inner(B, B).diagonal().sqrt()
        if not bool(torch.isfinite(self.norms).all()):
            raise ValueError("b has entries that are not finite")
        self.scale = torch.zeros_like(self.norms)
        self.curvature: float | None = None
        self.direction: Tensor | None = None
        self.found = "minres" if method == "minres" else "cg"
        self.stopped = False

    def run(self, x0: Tensor | None, max_matvecs: int | None, single: bool) -> Solution:
        A, k = self.A, self.B.shape[-1]
        self.planned = k * max(1000, 4 * A.shape[0]) if max_matvecs is None else max_matvecs
        X = torch.zeros_like(self.B)
        R, residual = self.B, torch.where(self.norms > 0, 1.0, 0.0).double()
        if x0 is not None:
            X = A.space.columns(x0)
            if X.shape != self.B.shape:
                raise ValueError(f"x0 has shape {tuple(X.shape)}, b {tuple(self.B.shape)}")
            R, residual = self._residual(X)
        unmet = residual > self.tol
        while bool(unmet.any()) and not self.stopped and self._left > k:
            before, start = residual, X
            for method, step in self._round(R, self._error(X)):
                R_tried, found = self._residual(start + step)
                better = found < residual
                self.found = method if bool(better.any()) else self.found
                X, R = (torch.where(better.to(X.device), *pair) for pair in ((start + step, X), (R_tried, R)))
                residual = torch.where(better, found, residual)
            still = residual + self._error(X) > self.tol
            if not bool((~still | (residual < 0.5 * before))[unmet].any()):
                break
            unmet = still
        error = self._error(X)
        converged = bool((residual + error <= self.tol).all())
        self._measure_direction()
        return Solution(
            x=X[..., 0] if single else X,
            residual=float(residual[0]) if single else residual,
            error=float(error[0]) if single else error,
            converged=converged,
            matvecs=A.matvecs - self.start,
            curvature=self.curvature,
            direction=self.direction,
            damping=self.damping,
            method=self.found,
        )

    def _measure_direction(self) -> None:
        """Where the recurrences say that the matrix is indefinite, a product tells the curvature itself."""
        if self.direction is None or self.curvature is None or self.curvature + self.damping > 0:
            return
        d = self.direction.unsqueeze(-1)
        self.curvature = float(self.A.inner(d, self.A @ d) / self.A.inner(d, d))

    @property
    def _left(self) -> int:
        return self.planned - (self.A.matvecs - self.start)

    def _round(self, R: Tensor, error: Tensor) -> list[tuple[str, Tensor]]:
        """Steps that one process offers from the residuals R, as far as it and the products go, with their methods."""
        process, k = Recurrence(self.A, self.damping, R, self.precondition), R.shape[-1]
        # what rounding takes of it needs no second round
        goal = self.norms * (0.98 * self.tol - error).clamp_min(0.5 * self.tol)
        while self._left >= 3 * k:
            process.step()
            residuals = self._residuals(process)
            if bool(((residuals <= goal) | process.ended | process.least_squares(_FLAT * self.tol)).all()):
                break
            if self.method == "cg" and not bool(process.definite.all()):
                break
            told = partial(self._told, residuals)
            if stops(self.A, self.callback, self.A.matvecs - self.start, self.planned, told):
                self.stopped = True
                break
        self._keep(process)
        cg = self._follows_cg(process)
        chosen = torch.where(cg.to(R.device), process.conjugate, process.minimal)
        steps = [("cg" if bool(cg.all()) else "minres", chosen)]
        if self.method == "auto" and bool((cg & (process.residuals("cg") > goal)).any()):
            steps.append(("minres", process.minimal))  # where CG has not converged its last iterate may be a bad one
        return steps

    def _follows_cg(self, process: Recurrence) -> Tensor:
        """`(k,)` bool: whether the process stops by CG's residual."""
        if self.method == "cg":
            return torch.ones_like(process.definite)
        return process.definite & (self.method == "auto")

    def _residuals(self, process: Recurrence) -> Tensor:
        if self.method == "minres":
            return process.residuals("minres")
        return torch.where(self._follows_cg(process), process.residuals("cg"), process.residuals("minres"))

    def _told(self, residuals: Tensor) -> RunningEstimate:
        return RunningEstimate(float((residuals / self.norms.clamp_min(1e-300)).max()), 0.0, "residual")

    def _keep(self, process: Recurrence) -> None:
        self.scale = torch.maximum(self.scale, process.scale)
        if self.curvature is None or process.least < self.curvature:
            self.curvature, self.direction = process.least, process.direction

    def _residual(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """b - (A + damping) x and its relative norm, by a product."""
        R = self.B - products(self.A, X) - self.damping * X
        norms = self.A.inner(R, R).diagonal().sqrt()
        require_finite(self.A, norms)
        return R, torch.where(self.norms > 0, norms / self.norms.clamp_min(1e-300), norms)

    def _error(self, X: Tensor) -> Tensor:
        """Of the residuals: one rounding and the noise of a product, which are relative to ||A|| ||x||."""
        unit = torch.finfo(self.A.dtype).eps / 2 + self.A.noise
        lengths = self.A.inner(X, X).diagonal().sqrt()
        return torch.where(self.norms > 0, unit * self.scale * lengths / self.norms.clamp_min(1e-300), 0.0)


def _applied(A: LinearOperator, given: LinearOperator | Tensor | None, damping: float) -> Apply | None:
    if given is None:
        return None
    if isinstance(given, LinearOperator):
        if given.shape != A.shape:
            raise ValueError(f"the preconditioner has shape {given.shape}, the operator {A.shape}")
        return lambda R: products(given, R.to(given.dtype)).to(R.dtype)
    diagonal = torch.as_tensor(given).detach().to(A.device)
    if diagonal.shape != A.space.shape:
        raise ValueError(f"a diagonal has the shape of a vector, {A.space.shape}, not {tuple(diagonal.shape)}")
    weights = diagonal.abs() + damping
    if not bool((weights > 0).all() & torch.isfinite(weights).all()):
        raise ValueError("|d| + damping has entries that are zero, negative or not finite: give a damping")
    inverse = (1.0 / weights).to(A.dtype).unsqueeze(-1)
    return lambda R: R * inverse
