"""The trace of a function of a matrix: the sum of f over its eigenvalues."""

from __future__ import annotations

import torch

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import BasisChoice
from landscape.spectra.callbacks import Callback
from landscape.spectra.carried import carries_check
from landscape.spectra.functions.results import SpectralSum
from landscape.spectra.functions.scalar import Function, Name, read
from landscape.spectra.functions.spectral_sum import Asked, spectral_sum


@carries_check
def trace_of(
    A: LinearOperator,
    f: Function | Name,
    *,
    rtol: float | None = None,
    matvecs: int | None = None,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> SpectralSum:
    """tr f(A), the sum of f over all eigenvalues, with its error.

    The standard error is that of random vectors with Student's factor for few, plus the error of the quadratures (the
    difference between step counts, an estimate and no bound), plus rounding and noise. Steps of Lanczos are taken until
    the quadrature is good enough beside the rest, as far as products go.

    Args:
        A: the operator.
        f: from eigenvalues, `(m,)` float64 on the host, to as many numbers, finite on the spectrum; or "sqrt", "log",
            "inverse-sqrt". f has to be smooth on the scale of the spectrum: a step is not (`density(A).mass` is for
            counts). Eigenvalues of an operator that is positive semi-definite by construction are never below 0.
        rtol: asks stderr <= rtol * |value|; random vectors are added until then, up to `matvecs`.
        matvecs: products allowed; default 500 without rtol (n if that is less), min(2 n, 5000) with.
        basis: where Krylov bases lie, as for `density`. Where even one does not fit, vectors are orthogonalised against
            the latest ones only.
        generator: for the random vectors; None takes a fresh seed, kept in the result.
        callback: called as (products made, products allowed, value so far) after each block; True stops.

    The value is exact (of the eigenvalues of the matrix, stderr is rounding and noise alone) when `matvecs` >= n and no
    rtol is asked, or when random vectors would take as many products; if the matrix fits `A.memory`.

    Raises:
        ValueError: f is not defined or not finite at a Ritz value, which is named; rtol <= 0 or matvecs < 1.
        MemoryError: not even five vectors fit.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import trace_of
        >>> A = MatrixOperator(torch.diag(torch.tensor([4.0, 1.0, 1.0, 0.25])))
        >>> found = trace_of(A, "sqrt")
        >>> round(found.value, 4), found.matvecs
        (4.5, 4)
        >>> round(trace_of(A, lambda x: x / (x + 1)).value, 4)  # the effective dimension at damping 1
        2.0
    """
    return spectral_sum(A, read(A, f), Asked(rtol, matvecs, basis, generator, callback))
