"""Rounds of a Lanczos process, each from the best x so far, until residuals that are computed anew are small.

Columns of a block leave a round one by one, and take part in the next one only while that helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products, require_finite
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.solve.recurrence import Apply, Recurrence

Method = Literal["auto", "cg", "minres"]
_FLAT = 0.1  # of tol: where the gradient of the residual norm is so small, rounding lets no x make that norm smaller


@dataclass(frozen=True)
class _Offer:
    """What a process offers to some columns: steps from their x, and whether these are those of CG.

    Attributes:
        open: the step of CG has not converged, so that it may be a bad one.
        minimal: the step of MINRES.
    """

    columns: Tensor
    step: Tensor
    by_cg: Tensor
    open: Tensor
    minimal: Tensor


class Rounds:
    """A system of k columns, the best X so far, and what was met on the way; scalars are `(k,)` float64 on the host.

    Attributes:
        X, R: `(n, k)`, and b - (A + damping) x of it.
        residual: its relative norm.
        scale: the largest norm of a column of A + damping that was met.
        curvature, direction: the least Rayleigh quotient of A as the recurrences have it, and its vector.
        found: "minres" where one column's x is due to it, else "cg".
    """

    def __init__(
        self,
        A: LinearOperator,
        B: Tensor,
        damping: float,
        method: Method,
        precondition: Apply | None,
        tol: float,
        max_matvecs: int | None,
        callback: Callback | None,
    ) -> None:
        self.A, self.B, self.damping, self.method, self.tol = A, B, damping, method, tol
        self.precondition, self.callback = precondition, callback
        self._start = A.matvecs
        self.norms = A.inner(B, B).diagonal().sqrt()
        if not bool(torch.isfinite(self.norms).all()):
            raise ValueError("b has entries that are not finite")
        self.planned = B.shape[-1] * max(1000, 4 * A.shape[0]) if max_matvecs is None else max_matvecs
        self.scale = torch.zeros_like(self.norms)
        self.curvature: float | None = None
        self.direction: Tensor | None = None
        self.found = "minres" if method == "minres" else "cg"
        self._stopped = False
        self.X, self.R = torch.zeros_like(B), B
        self.residual = torch.where(self.norms > 0, 1.0, 0.0).double()

    def run(self, x0: Tensor | None) -> None:
        """Go on until all columns have converged, or nothing helps."""
        if x0 is not None:
            if x0.shape != self.B.shape:
                raise ValueError(f"x0 has shape {tuple(x0.shape)}, b {tuple(self.B.shape)}")
            self.X = x0
            self.R, self.residual = self._residual(x0, torch.arange(x0.shape[-1]))
        unmet = self.residual > self.tol
        while bool(unmet.any()) and not self._stopped and self._left > int(unmet.sum()):
            before, (columns,) = self.residual, unmet.nonzero(as_tuple=True)
            start = self.X[..., columns]
            for offer in list(self._round(columns)):
                where = torch.searchsorted(columns, offer.columns)
                self._take(offer.columns, start[..., where] + offer.step, offer.by_cg)
                again = offer.open
                if bool(again.any()):
                    step = start[..., where[again]] + offer.minimal[..., again]
                    self._take(offer.columns[again], step, torch.zeros(int(again.sum()), dtype=torch.bool))
            still = self.residual + self.error > self.tol
            unmet = unmet & still & (self.residual < 0.5 * before)

    @property
    def error(self) -> Tensor:
        """Of the residuals: one rounding and the noise of a product, which are relative to ||A|| ||x||."""
        unit = torch.finfo(self.A.dtype).eps / 2 + self.A.noise
        lengths = self.A.inner(self.X, self.X).diagonal().sqrt()
        return torch.where(self.norms > 0, unit * self.scale * lengths / self.norms.clamp_min(1e-300), 0.0)

    @property
    def matvecs(self) -> int:
        """Products made."""
        return self.A.matvecs - self._start

    def measured_curvature(self) -> float | None:
        """`curvature`; where it says that the matrix is indefinite, a product tells its value itself."""
        if self.direction is None or self.curvature is None or self.curvature + self.damping > 0:
            return self.curvature
        d = self.direction.unsqueeze(-1)
        return float(self.A.inner(d, self.A @ d) / self.A.inner(d, d))

    @property
    def _left(self) -> int:
        return self.planned - self.matvecs

    def _take(self, columns: Tensor, X: Tensor, by_cg: Tensor) -> None:
        """Take these x where their residuals, which cost a product each, are smaller."""
        R, found = self._residual(X, columns)
        better = found < self.residual[columns]
        if bool((better & ~by_cg).any()):
            self.found = "minres"
        which = columns[better]
        self.X, self.R, self.residual = (
            _with(old, which, new[..., better]) for old, new in ((self.X, X), (self.R, R), (self.residual, found))
        )

    def _round(self, columns: Tensor) -> Iterator[_Offer]:
        """What one process offers, as far as it and the products go: columns that are through leave it."""
        process = Recurrence(self.A, self.damping, self.R[..., columns], self.precondition)
        # what rounding takes of it needs no second round
        goal = self.norms * (0.98 * self.tol - self.error).clamp_min(0.5 * self.tol)
        running, checks = columns, 2 * len(columns)
        while len(running) and self._left >= len(running) + checks:
            process.step()
            residuals = self._residuals(process)
            through = (residuals <= goal[running]) | process.ended | process.least_squares(_FLAT * self.tol)
            if self.method == "cg":
                through |= ~process.definite
            if not bool(through.all()):
                told = partial(self._told, residuals / self.norms[running].clamp_min(1e-300))
                self._stopped = stops(self.A, self.callback, self.matvecs, self.planned, told)
            if self._stopped or bool(through.all()):
                break
            if bool(through.any()):
                yield self._offer(process, running, goal, through)
                process.keep((~through).nonzero()[:, 0])
                running = running[~through]
        yield self._offer(process, running, goal, torch.ones(len(running), dtype=torch.bool))
        if self.curvature is None or process.least < self.curvature:
            self.curvature, self.direction = process.least, process.direction

    def _offer(self, process: Recurrence, running: Tensor, goal: Tensor, which: Tensor) -> _Offer:
        columns, by_cg = running[which], self._follows_cg(process)[which]
        self.scale[columns] = torch.maximum(self.scale[columns], process.scale[which])
        minimal = process.minimal[..., which]
        step = torch.where(by_cg.to(minimal.device), process.conjugate[..., which], minimal)
        unmet = by_cg & (process.residuals("cg")[which] > goal[columns]) & (self.method == "auto")
        return _Offer(columns, step, by_cg, unmet, minimal)

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
        return RunningEstimate(float(residuals.max()), 0.0, "residual")

    def _residual(self, X: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """b - (A + damping) x of these columns and its relative norm, by a product each."""
        R = self.B[..., columns] - products(self.A, X) - self.damping * X
        norms, own = self.A.inner(R, R).diagonal().sqrt(), self.norms[columns]
        require_finite(self.A, norms)
        return R, torch.where(own > 0, norms / own.clamp_min(1e-300), norms)


def _with(old: Tensor, columns: Tensor, new: Tensor) -> Tensor:
    """The same with other columns in some places."""
    if len(columns) == old.shape[-1]:
        return new
    return old.index_copy(old.ndim - 1, columns.to(old.device), new)
