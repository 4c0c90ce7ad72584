"""The trace of an operator with an honest standard error, by one of three estimators or exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from landscape.operators.linear import LinearOperator, error_floor, require_finite
from landscape.spectra.basis.place import BasisChoice, Where, choose_place
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import carries_check
from landscape.spectra.hutchinson import Hutchinson
from landscape.spectra.hutchpp import HutchPlusPlus
from landscape.spectra.results import Estimate
from landscape.spectra.sketch import Sketch
from landscape.spectra.xtrace import XTrace

DEFAULT_MATVECS = 120
MAX_MATVECS = 1000  # with rtol
_FIRST = 36  # products of the first stage when rtol is asked
# Below this many products XTrace has too few samples to know its error, and Hutchinson has twice as many.
_SMALL = 12


class _Method(Protocol):
    products_per_sample: int

    @property
    def sketch(self) -> Sketch | None: ...  # what keeps vectors
    def extend(self, k: int) -> int: ...
    def estimate(self) -> tuple[float, float, float]: ...


# XNysTrace, of the paper of XTrace, is for semi-definite matrices and takes one product for a test vector. It is not
# here: of twelve such spectra (n = 300; 24, 48 and 96 products, 40 runs) its error was smaller than XTrace's by 3 to
# 400 where eigenvalues fall exponentially and by 1 to 2.5 for other decays, but larger by up to 2.6 for outliers above
# a bulk, as networks have; and the scatter of its samples understates it by 0.9 to 3.4, for which no one factor stands.
_METHODS: dict[str, Callable[[LinearOperator, torch.Generator, Where], _Method]] = {
    "hutchinson": Hutchinson,
    "hutch++": HutchPlusPlus,
    "xtrace": XTrace,
}


@carries_check
def trace(
    A: LinearOperator,
    *,
    method: str = "auto",
    rtol: float | None = None,
    matvecs: int | None = None,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Estimate[float]:
    """tr(A) with its standard error.

    Args:
        A: the operator.
        method: "hutchinson", "hutch++", "xtrace" or "auto". Auto takes XTrace when at least 12 products are allowed
            and its vectors (one per product, and a block in flight) fit the memory of the device or of the host, or the
            place that is named, else Hutchinson.
        rtol: asks stderr <= rtol * |value|; products grow in stages, all of them are used, up to `matvecs`.
        matvecs: products allowed; default 120 without rtol (n if that is less), min(2 n, 1000) with.
        basis: where hutch++ and xtrace keep their vectors, as for `eigsh`: "device", "host", "disk" or "auto", the
            first of them that has room. Hutchinson keeps none.
        generator: for the random vectors; None takes a fresh seed, kept in the result.
        callback: called as (products made, products allowed, value so far) after each block; True stops.

    Whatever the method, the trace is exact (from n unit vectors; stderr is rounding alone, and `A.noise` of the norms
    of all columns) when `matvecs` >= n and no rtol is asked, or when the next stage of an rtol would reach n.

    Returns:
        `Estimate` of two floats. The error holds Student's factor, rounding and noise. converged: the rtol is
        reached, or without one all planned products were made.

    Raises:
        ValueError: unknown method, rtol <= 0, fewer than 1 product (3 for hutch++, 2 for xtrace).
        MemoryError: the vectors of the method that was asked for by name do not fit there.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import trace
        >>> A = MatrixOperator(torch.diag(1.0 / torch.arange(1, 201) ** 2))
        >>> found = trace(A, matvecs=60, generator=torch.Generator().manual_seed(0))
        >>> round(found.value, 1), found.stderr < 0.1, found.matvecs
        (1.6, True, 60)
    """
    if method != "auto" and method not in _METHODS:
        raise ValueError(f"method is one of auto, {', '.join(_METHODS)}, not {method!r}")
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol must be positive, not {rtol}")
    n = A.shape[0]
    default = min(n, DEFAULT_MATVECS) if rtol is None else min(2 * n, MAX_MATVECS)
    limit = default if matvecs is None else matvecs
    rng, seed = A.space.generator(generator)
    method, where = _choose(A, method, limit, basis)
    estimator = _METHODS[method](A, rng, where)
    try:
        found = _run(A, estimator, rtol, limit, seed, callback)
        return found if estimator.sketch is None else replace(found, footprint=estimator.sketch.footprint)
    finally:
        if estimator.sketch is not None:
            estimator.sketch.close()
        A.release()


def _choose(A: LinearOperator, method: str, limit: int, basis: str) -> tuple[str, Where]:
    """The method that is meant and where its vectors lie, after a look at products and budgets."""
    # a vector kept per product; a block of the last stage, its products and an orthonormalisation of it beside
    beside = 3 * A.products_per_call(max(1, limit // 2))
    place = choose_place(A, basis, enough=limit, beside=beside)
    fits = place.columns >= limit or limit >= A.shape[0]
    if method == "auto":
        near = place.where != "disk" or basis == "disk"  # what is on disk is read again and again
        method = "xtrace" if limit >= _SMALL and fits and near else "hutchinson"
    elif method != "hutchinson" and not fits:
        needed = (limit + beside) * A.space.column_bytes
        raise MemoryError(
            f"{method} with {limit} products keeps vectors of {needed:,} bytes, the budget is {A.memory:,}: "
            "ask for fewer products, or for method='hutchinson', which keeps none"
        )
    least = {"hutchinson": 1, "hutch++": 3, "xtrace": 2}[method]
    if limit < least:
        raise ValueError(f"{method} needs matvecs >= {least}, not {limit}")
    return method, place.where


def _run(
    A: LinearOperator, estimator: _Method, rtol: float | None, limit: int, seed: int, callback: Callback | None
) -> Estimate[float]:
    n, used = A.shape[0], 0
    per = estimator.products_per_sample
    target = limit if rtol is None else min(limit, _FIRST)
    value, stderr, floor, stopped = math.nan, math.inf, 0.0, False
    while True:
        # within the products that are left, n unit vectors beat as many random ones
        if limit - used >= n and (target >= n or target + n > limit):
            return _exact(A, limit, used, seed, callback)
        while used + per <= target and not stopped:
            block = min(64, A.products_per_call(max(1, (target - used) // per)))
            used += estimator.extend(min(block, (target - used) // per))
            value, stderr, size = estimator.estimate()
            require_finite(A, value)
            floor = error_floor(A) * max(size, abs(value))
            so_far = partial(RunningEstimate, value, stderr + floor, "trace")
            stopped = stops(A, callback, used, limit, so_far)
        reached = rtol is not None and stderr + floor <= rtol * abs(value)
        # more products do not help against noise
        hopeless = rtol is not None and floor > rtol * abs(value) and stderr <= floor
        if stopped or reached or hopeless or target >= limit:
            converged = reached if rtol is not None else not stopped
            return Estimate(value, stderr + floor, used, converged, seed)
        target = min(limit, 2 * target)


def _exact(A: LinearOperator, limit: int, used: int, seed: int, callback: Callback | None) -> Estimate[float]:
    """The sum of e_i^T A e_i over all unit vectors."""
    n, total, size = A.shape[0], 0.0, 0.0
    step = A.products_per_call(n)
    for start in range(0, n, step):
        E = A.space.unit(range(start, min(start + step, n)))
        W = A @ E
        diagonal = A.space.inner(E, W).diagonal()
        total += float(diagonal.sum())
        # noise is relative to the whole column
        size += float((A.space.inner(W, W).diagonal().sqrt() if A.noise else diagonal.abs()).sum())
        require_finite(A, total)
        done = min(start + step, n)
        error = error_floor(A) * size if done == n else math.inf
        so_far = partial(RunningEstimate, total * n / done, error, "trace")
        if stops(A, callback, used + done, limit, so_far) and done < n:
            return Estimate(total * n / done, math.inf, used + done, False, seed)
    return Estimate(total, error_floor(A) * size, used + n, True, seed)
