"""The condition number of a symmetric operator: the largest over the smallest |eigenvalue| above a threshold."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from landscape.operators.linear import ROUNDINGS, LinearOperator, require_finite, rounding
from landscape.spectra.basis.place import BasisChoice, choose_place
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import carries_check
from landscape.spectra.eigsh import eigsh
from landscape.spectra.krylov import BESIDE, Krylov
from landscape.spectra.results import ConditionNumber

DENSE_LIMIT = 2048
LANCZOS_STEPS = 200

# What is added to the rank to show how much kappa hangs on it.
NEIGHBOURS = (-2, -1, 1)

RELATIVE_THRESHOLDS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)


@carries_check
def condition_number(
    A: LinearOperator,
    *,
    threshold: float | None = None,
    rank: int | None = None,
    basis: BasisChoice = "auto",
    callback: Callback | None = None,
) -> ConditionNumber:
    """kappa = max / min of |eigenvalue| over the eigenvalues with |eigenvalue| > threshold.

    Up to n = 2048 (`DENSE_LIMIT`) the matrix is formed (n products) and its eigenvalues are computed in float64.
    Beyond, for operators whose `positive_semidefinite` is True, at most 200 Lanczos steps give a lower bound: the
    largest Ritz value over the smallest upper end theta + residual of a Ritz value that lies above the
    threshold with its error; converged is then False.

    Args:
        A: the operator.
        threshold: absolute, >= 0; default n * eps * largest with eps the larger of the dtype's and `A.noise`.
        rank: instead of a threshold: kappa = largest / rank-th largest |eigenvalue|. Beyond n = 2048 it comes from
            `eigsh`, for any operator.
        basis: where a Krylov basis lies, as for `eigsh` and `lanczos`; the matrix that is formed is no such.
        callback: called as (products made, products planned, largest |eigenvalue| so far) after each block, that one
            nan while a matrix is formed. True stops: Lanczos has its bound by then, of half a matrix nothing is known
            (kappa is nan).

    Returns:
        `ConditionNumber`. Without an eigenvalue above the threshold (the zero matrix) kappa is inf, rank 0 and
        smallest 0.0.

    Raises:
        ValueError: both threshold and rank, a negative or not finite threshold, rank outside 1..n; an operator
            beyond 2048 that may be indefinite (Lanczos says nothing about eigenvalues around 0 inside a spectrum).
        MemoryError: the dense matrix or the Lanczos basis does not fit `A.memory`.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import condition_number
        >>> A = MatrixOperator(torch.diag(torch.tensor([8.0, 4.0, 2.0, 0.0])))
        >>> found = condition_number(A)
        >>> round(found.kappa, 3), found.rank, round(condition_number(A, rank=2).kappa, 3)
        (4.0, 3, 2.0)
    """
    n = A.shape[0]
    if threshold is not None and rank is not None:
        raise ValueError("give a threshold or a rank, not both")
    if threshold is not None and not (threshold >= 0 and math.isfinite(threshold)):
        raise ValueError(f"the threshold must be finite and not negative, got {threshold}")
    if rank is not None and not 1 <= rank <= n:
        raise ValueError(f"rank must be between 1 and n = {n}, not {rank}")
    try:
        if n <= DENSE_LIMIT:
            return _dense(A, threshold, rank, callback)
        if rank is not None:
            return _by_rank(A, rank, basis, callback)
        if not A.positive_semidefinite:
            raise ValueError(
                f"{type(A).__name__} has n = {n} > {DENSE_LIMIT} and is not known to be positive semi-definite: its "
                "smallest |eigenvalue| lies inside the spectrum, where Lanczos gives no bound. Pass rank=, restrict "
                "it to fewer parameters, use the Gauss-Newton operator, or set A.positive_semidefinite = True if "
                "you know that it is"
            )
        return lower_bound(A, threshold, basis, callback)
    finally:
        A.release()


def _dense(A: LinearOperator, threshold: float | None, rank: int | None, callback: Callback | None) -> ConditionNumber:
    n, made, columns = A.shape[0], 0, []
    for block in A.columns():
        columns.append(block)
        made += block.shape[-1]
        if stops(A, callback, made, n, partial(RunningEstimate, math.nan)) and made < n:
            return _unknown(made)
    dense = torch.cat(columns, dim=-1).double().cpu()
    require_finite(A, dense)
    eigenvalues = torch.linalg.eigvalsh(0.5 * (dense + dense.T))
    return of_eigenvalues(eigenvalues, threshold, rounding(A), rank=rank, matvecs=A.shape[0])


def _unknown(matvecs: int) -> ConditionNumber:
    """What is known of a matrix of which too few products were made."""
    return ConditionNumber(math.nan, math.nan, math.nan, 0, math.nan, False, matvecs)


def of_eigenvalues(
    eigenvalues: Tensor,
    threshold: float | None,
    unit: float,
    *,
    rank: int | None = None,
    matvecs: int = 0,
    semidefinite: bool = False,
) -> ConditionNumber:
    """`ConditionNumber` from all eigenvalues, `(n,)` float64, by an absolute threshold or, when given, by the rank.

    unit: the default threshold is n * unit * largest.
    semidefinite: negative ones are rounding errors and count as zero.
    """
    n = len(eigenvalues)
    values = eigenvalues.cpu().sort().values
    sizes = (values.clamp(min=0.0) if semidefinite else values.abs()).sort(descending=True).values
    largest = float(sizes[0])
    own = rank is None and threshold is None
    if rank is not None:
        threshold = float(sizes[rank]) if rank < n else 0.0
    elif threshold is None:
        threshold = n * unit * largest
    count = rank if rank is not None else int((sizes > threshold).sum())
    smallest = float(sizes[count - 1]) if count else 0.0
    neighbours = {step: _at_rank(sizes, count + step) for step in NEIGHBOURS}
    counts = [(relative, int((sizes > relative * largest).sum())) for relative in RELATIVE_THRESHOLDS]
    table = tuple((relative, above, _at_rank(sizes, above) if above else math.inf) for relative, above in counts)
    kappa = _at_rank(sizes, count) if count else math.inf
    below = float(sizes[count]) if rank is None and count < n else 0.0  # the largest that does not count
    # the default threshold is far above rounding errors, which are about sqrt(n) * unit
    cut_off = own and below > max(ROUNDINGS, math.sqrt(n)) * unit * largest
    limit = _limiter(own, unit) if below > 0.0 and (cut_off or 0.0 < smallest < 2.0 * threshold) else ""
    return ConditionNumber(kappa, largest, smallest, count, threshold, True, matvecs, table, values, neighbours, limit)


def _limiter(own: bool, unit: float) -> str:
    """What limits kappa where the threshold cuts through the spectrum; see `ConditionNumber.limited_by`."""
    return _precision(unit) if own else "the threshold"


def _precision(unit: float) -> str:
    """The dtype with this rounding, else the noise."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        if math.isclose(unit, torch.finfo(dtype).eps, rel_tol=1e-6):
            return str(dtype).removeprefix("torch.")
    return f"noise {unit:.0e}"


def _at_rank(sizes: Tensor, rank: int) -> float:
    """The largest over the rank-th largest size: nan where there is none, inf where it is 0."""
    if not 1 <= rank <= len(sizes):
        return math.nan
    return float(sizes[0] / sizes[rank - 1]) if sizes[rank - 1] > 0 else math.inf


def _by_rank(A: LinearOperator, rank: int, basis: BasisChoice, callback: Callback | None) -> ConditionNumber:
    pairs = eigsh(A, rank, which="LM", tol=max(1e-6, 64.0 * rounding(A)), basis=basis, callback=callback)
    sizes = pairs.values.abs()
    if len(sizes) < rank:
        return _unknown(pairs.matvecs)
    smallest, residual = float(sizes[-1]), float(pairs.residuals[-1])
    converged = pairs.converged and residual <= 1e-2 * smallest
    bound = smallest if converged else smallest + residual  # kappa stays a lower bound
    kappa = float(sizes[0]) / bound if bound > 0 else math.inf
    taken = pairs.footprint
    return ConditionNumber(kappa, float(sizes[0]), bound, rank, 0.0, converged, pairs.matvecs, footprint=taken)


@carries_check
def lower_bound(
    A: LinearOperator, threshold: float | None, basis: BasisChoice = "auto", callback: Callback | None = None
) -> ConditionNumber:
    """A lower bound of kappa of a positive semi-definite operator from Lanczos; see `condition_number`."""
    n = A.shape[0]
    # a fixed start: a bound has no error bar to sample
    v = A.space.random(1, "normal", torch.Generator().manual_seed(0))
    wanted = min(LANCZOS_STEPS, n)
    place = choose_place(A, basis, enough=wanted, beside=BESIDE)
    steps = min(wanted, place.columns)
    if steps < 2:
        raise MemoryError(f"the Lanczos basis of condition_number does not fit the budget of {A.memory:,} bytes")
    space = Krylov(A, steps, place.where)
    try:
        space.absorb(A @ space.inject(v))
        so_far = lambda: RunningEstimate(*space.largest(), "lambda_1")  # noqa: E731
        while not stops(A, callback, space.size, steps, so_far) and space.size < steps and space.pending.shape[-1]:
            space.advance(1)
        ritz = space.ritz()
    finally:
        space.basis.close()
    error = ritz.residuals + 16.0 * rounding(A) * space.scale
    largest = max(0.0, float(ritz.values[-1]))
    cut = n * rounding(A) * largest if threshold is None else threshold

    def row(level: float) -> tuple[int, float, float]:
        certain = ritz.values - error > level  # an eigenvalue lies within the error: above the level
        if largest == 0.0 or not bool(certain.any()):
            return 0, math.inf, 0.0
        smallest = min(largest, float((ritz.values + error)[certain].min()))
        return int(certain.sum()), largest / smallest, smallest

    rank, kappa, smallest = row(cut)
    table = tuple((r, *row(r * largest)[:2]) for r in RELATIVE_THRESHOLDS)
    limit = _limiter(threshold is None, rounding(A)) if 0.0 < smallest < 2.0 * cut else ""
    taken = space.basis.footprint
    return ConditionNumber(
        kappa, largest, smallest, rank, cut, False, space.size, table, limited_by=limit, footprint=taken
    )
