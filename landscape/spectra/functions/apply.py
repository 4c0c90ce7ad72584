"""f(A) b by Lanczos: ||b|| Q f(T) e_1, with T and Q of a process that begins at b (Druskin and Knizhnerman 1989).

What the value is wrong by is taken to be its difference from fewer steps, which the small matrices tell without a
vector, as Q has orthonormal columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from landscape.operators.linear import LinearOperator, error_floor
from landscape.spectra.basis.place import BasisChoice, Footprint, Place
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import Measured, carries_check
from landscape.spectra.chains import Chains, chains_place
from landscape.spectra.functions.quadrature import Decomposed, due, ended, left_end, smaller, step_counts, times
from landscape.spectra.functions.scalar import Function, Name, Scalar, read
from landscape.spectra.krylov import Krylov

MAX_STEPS = 500


@dataclass(frozen=True)
class Applied(Measured):
    """f(A) b, with what it may be wrong by.

    Attributes:
        value: `(n,)` or `(n, k)`, as b, in the operator's dtype on its device.
        error: `(k,)` float64 on the host, or a number for one b: the estimate of ||value - f(A) b|| / ||value||, from
            the difference of step counts, with rounding and noise. It is no bound. inf where nothing is known.
        converged: every error is within tol.
        matvecs: products made.
        steps: of Lanczos, the most for a column.
        lowest, highest: Ritz values that were met.
    """

    value: Tensor = field(repr=False)
    error: float | Tensor
    converged: bool
    matvecs: int
    steps: int
    lowest: float
    highest: float

    def __str__(self) -> str:
        state = "" if self.converged else ", not converged"
        worst = float(torch.as_tensor(self.error).max())
        shape = "x".join(map(str, self.value.shape))
        return "; ".join([f"{shape} values, error {worst:.2g} ({self.matvecs} products{state})", *self._remarks()])


@carries_check
def apply(
    A: LinearOperator,
    f: Function | Name,
    b: Tensor | np.ndarray[Any, Any],
    *,
    tol: float = 1e-6,
    gap: float | None = None,
    max_matvecs: int | None = None,
    basis: BasisChoice = "auto",
    callback: Callback | None = None,
) -> Applied:
    """f(A) b for one b `(n,)` or a block `(n, k)`, each column by a process of its own.

    Stops when the error of every column is within `tol`. That error is the difference between the values of so many
    steps and of three quarters of them, or of half of them where convergence is not as fast: an estimate, not a bound.
    An eigenvalue of which b has next to nothing, at which f is large, escapes it.

    Args:
        A: the operator.
        f: from eigenvalues, `(m,)` float64 on the host, to as many numbers; or "sqrt" of a positive semi-definite A,
            "log" or "inverse-sqrt" of a positive definite one. Eigenvalues within rounding of 0 count as 0.
        b: `(n,)` or `(n, k)`.
        tol: of ||value - f(A) b|| / ||value||.
        gap: for "inverse-sqrt" of a singular A: its eigenvalues are 0 or at least this, and the value is that of the
            pseudo-inverse's root, 0 on the null space. Without it the smallest Ritz value must have been told from 0,
            its residual and rounding subtracted, before anything counts as converged.
        max_matvecs: default min(n, 500) steps for each column.
        basis: where the basis lies, as for `lanczos`. A process that outgrows what fits there orthogonalises against
            the latest vectors and runs twice, the second time to add them up: what the runs differ by enters the error.
        callback: called as (products made, products allowed, largest error so far) after each step; True stops.

    Raises:
        ValueError: b misshapen or not finite, a tol that is not positive; a Ritz value at which f is not defined: a
            negative one beyond rounding for the three names, 0 for log and inverse-sqrt, an eigenvalue inside a gap
            that was given. It is named.
        MemoryError: not even five vectors fit.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import apply
        >>> A = MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
        >>> found = apply(A, "sqrt", torch.tensor([1.0, 1.0]))
        >>> found.value.round(decimals=4).tolist(), found.converged
        ([1.7321, 1.7321], True)
    """
    if not tol > 0:
        raise ValueError(f"tol is positive, not {tol}")
    if gap is not None and not (f == "inverse-sqrt" and gap > 0):
        raise ValueError(f'gap is positive and for "inverse-sqrt", not {gap} for {f!r}')
    B = A.space.columns(b)
    k = B.shape[-1]
    if max_matvecs is not None and max_matvecs < max(1, k):
        raise ValueError(f"max_matvecs is at least one for each of the {k} columns, not {max_matvecs}")
    unsafe = f == "inverse-sqrt" and gap is None
    try:
        found = _Run(A, _cut(read(A, f), gap), gap, unsafe, tol, callback).blocks(B, max_matvecs, basis)
        if np.ndim(b) == len(A.space.shape):
            found = replace(found, value=found.value[..., 0], error=float(torch.as_tensor(found.error)[0]))
        return found
    finally:
        A.release()


def _cut(f: Scalar, gap: float | None) -> Scalar:
    """0 below a gap, so that f is that of the pseudo-inverse."""
    if gap is None:
        return f
    return replace(f, call=lambda x: torch.where(x < gap / 2, 0.0, torch.rsqrt(x.clamp(min=gap / 2))), open=False)


class _Run:
    """The columns in groups whose bases fit; each group in lockstep."""

    def __init__(
        self, A: LinearOperator, f: Scalar, gap: float | None, needs_gap: bool, tol: float, callback: Callback | None
    ) -> None:
        self.A, self.f, self.gap, self.needs_gap = A, f, gap, needs_gap
        self.tol, self.callback = tol, callback
        self.used, self.planned, self.steps, self.stopped = 0, 0, 0, False
        self.floor = error_floor(A)
        self.lowest, self.highest = math.inf, -math.inf

    def blocks(self, B: Tensor, limit: int | None, basis: BasisChoice) -> Applied:
        n, k = self.A.shape[0], B.shape[-1]
        if k == 0:
            return Applied(B, torch.zeros(0, dtype=torch.float64), True, 0, 0, math.nan, math.nan)
        depth = min(n, MAX_STEPS if limit is None else limit // k)
        place, at_once = chains_place(self.A, k, depth, basis, "a function of a matrix")
        if not at_once and limit is not None:  # a process that outgrows its basis runs twice
            depth = max(min(depth, place.columns), depth // 2)
        self.planned = limit or k * depth * (1 if at_once else 2)
        values, errors = [], []
        taken = Footprint(0, place.where)
        for V in B.split(max(1, at_once), dim=-1):
            chains, found, wrong = self._group(V, depth, place)
            values.append(found)
            errors.append(wrong)
            taken = max(taken, chains.footprint, key=lambda one: one.vectors)
        error = torch.cat(errors)
        return Applied(
            value=torch.cat(values, dim=-1),
            error=error,
            converged=bool((error <= self.tol).all()),
            matvecs=self.used,
            steps=self.steps,
            lowest=self.lowest,
            highest=self.highest,
            footprint=taken,
        )

    def _group(self, V: Tensor, depth: int, place: Place) -> tuple[Chains, Tensor, Tensor]:
        A = self.A
        norms = A.inner(V, V).diagonal().sqrt()
        chains = Chains(A, V, min(depth, place.columns), place.where)
        errors = torch.where(norms > 0, math.inf, 0.0).double()
        try:
            last = 0
            while chains.steps < depth and not self.stopped:
                running = chains.step(partial(self._open, chains, errors))
                if not running:
                    break
                self.used += len(running)
                worst = float(errors.max())
                self.stopped = stops(A, self.callback, self.used, self.planned, partial(self._told, worst))
                if due(chains.steps, last) or chains.steps == depth or any(ended(chain) for chain, _ in running):
                    last = chains.steps
                    errors = torch.tensor([self._error(chain) for chain in chains.each], dtype=torch.float64)
            errors = torch.tensor([self._error(chain) for chain in chains.each], dtype=torch.float64)
            self.steps = max(self.steps, chains.steps)
            if any(chain.size > chain.capacity for chain in chains.each):
                return (chains, *self._again(V, chains, norms, errors, place))
            parts = [self._combined(chain, norm) for chain, norm in zip(chains.each, norms, strict=True)]
            return chains, torch.cat(parts, dim=-1), errors
        finally:
            chains.close()

    def _open(self, chains: Chains, errors: Tensor, chain: Krylov) -> bool:
        return float(errors[chains.each.index(chain)]) > self.tol

    def _told(self, worst: float) -> RunningEstimate:
        return RunningEstimate(worst, 0.0, "error")

    def _coefficients(self, part: Decomposed, slack: float) -> Tensor:
        """f(T) e_1, `(steps,)`."""
        return part.vectors @ (self.f.of(part.nodes, slack) * part.vectors[0])

    def _error(self, chain: Krylov) -> float:
        """Of a column, relative to its value."""
        if chain.size == 0:
            return 0.0
        slack = self.floor * chain.scale
        whole, *fewer = (Decomposed.of(chain, steps) for steps in step_counts(chain))
        self.lowest = min(self.lowest, float(whole.nodes[0]))
        self.highest = max(self.highest, float(whole.nodes[-1]))
        if (chain.size == 1 and not ended(chain)) or not self._told_from_zero(chain, whole, slack):
            return math.inf
        y = self._coefficients(whole, slack)
        size = float(y.norm())
        differences = [_distance(y, self._coefficients(part, slack)) for part in fewer]
        end = left_end(chain, self.f, slack)
        beyond = 0.0 if end is None else _distance(y, self._coefficients(end, slack))
        rounding = self.floor * size + math.sqrt(times(whole.vectors[0] ** 2, self.f.change(whole.nodes, slack) ** 2))
        error = max(smaller(differences), beyond) + rounding
        return error / size if size > 0 else (0.0 if error == 0 else math.inf)

    def _told_from_zero(self, chain: Krylov, part: Decomposed, slack: float) -> bool:
        """Whether the smallest Ritz value is known not to be 0, where that matters.

        Raises `ValueError` for an eigenvalue inside a gap that was given.
        """
        left = float(chain.gram.trace().sqrt()) if not ended(chain) else 0.0
        residuals = left * part.vectors[-1].abs() + slack
        if self.gap is not None:
            inside = (part.nodes - residuals > slack) & (part.nodes + residuals < self.gap)
            if bool(inside.any()):
                raise ValueError(
                    f"an eigenvalue of {float(part.nodes[inside][0]):.3g} lies between 0 and gap = {self.gap:g}: give "
                    "a gap below it, or a damping by A.shifted(s)"
                )
        return not self.needs_gap or float(part.nodes[0] - residuals[0]) > 0

    def _combined(self, chain: Krylov, norm: Tensor) -> Tensor:
        if chain.size == 0:
            return self.A.space.zeros(1)
        y = self._coefficients(Decomposed.of(chain, chain.size), self.floor * chain.scale)
        return chain.combine(float(norm) * y.unsqueeze(-1))

    def _again(self, V: Tensor, chains: Chains, norms: Tensor, errors: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """The values by the same processes once more, and the errors with what these differ by."""
        (first,), (norm,) = chains.each, norms
        value = self.A.space.zeros(1)
        if first.size == 0:
            return value, errors
        slack = self.floor * first.scale
        y = self._coefficients(Decomposed.of(first, first.size), slack)
        again = Chains(self.A, V, first.capacity, place.where)
        try:
            for weight in y:
                running = again.step()
                if not running:
                    break
                self.used += 1
                value = value + float(norm * weight) * running[0][1]
            (second,) = again.each
            z = self._coefficients(Decomposed.of(second, second.size), slack)
            return value, errors + _distance(y, z) / float(y.norm().clamp(min=1e-300))
        finally:
            again.close()


def _distance(y: Tensor, z: Tensor) -> float:
    """Between coefficients in one basis, of which one may be longer."""
    m = max(len(y), len(z))
    return float((pad(y, (0, m - len(y))) - pad(z, (0, m - len(z)))).norm())
