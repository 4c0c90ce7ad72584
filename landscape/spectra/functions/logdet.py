"""log det(A + damping I) = tr log(A + damping I), by stochastic Lanczos quadrature."""

from __future__ import annotations

import math

import torch

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import BasisChoice
from landscape.spectra.callbacks import Callback
from landscape.spectra.carried import carries_check
from landscape.spectra.functions.results import SpectralSum
from landscape.spectra.functions.scalar import Scalar
from landscape.spectra.functions.spectral_sum import Asked, spectral_sum


@carries_check
def logdet(
    A: LinearOperator,
    *,
    damping: float = 0.0,
    rtol: float | None = None,
    matvecs: int | None = None,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> SpectralSum:
    """log det(A + damping I) with its error; A + damping I has to be positive definite.

    A damping that is small beside the largest eigenvalue asks for many Lanczos steps, about the square root of their
    ratio: `quadrature` in the result is the part of the error that is due to them.

    Args:
        A: the operator.
        damping: added to the diagonal.
        rtol, matvecs, basis, generator, callback: as for `trace_of`. The value may be near 0 though its parts are not:
            an rtol then asks for much.

    Raises:
        ValueError: a Ritz value says that A + damping I is singular or indefinite; it is named. None is met where the
            random vectors have nearly nothing of an eigenvector: `eigsh(A, 1, which="SA")` proves what is the smallest.
        MemoryError, FloatingPointError: as `trace_of`.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import logdet
        >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 1.0, 0.0])))
        >>> round(logdet(A, damping=1.0).value, 4)  # log(4 * 2 * 1)
        2.0794
    """
    return spectral_sum(A, shifted_log(A, damping), Asked(rtol, matvecs, basis, generator, callback, "log det"))


def shifted_log(A: LinearOperator, damping: float) -> Scalar:
    """log(x + damping) on the spectrum of A."""
    if not math.isfinite(damping):
        raise ValueError(f"damping is a finite number, not {damping}")

    def refused(lowest: float, slack: float) -> str:
        kind = "indefinite" if lowest + damping < -slack else "singular within rounding"
        return (
            f"A + {damping:g} I is {kind}: a Ritz value of A of {lowest:.3g} was met; a log determinant needs "
            f"a damping above {max(slack, slack - lowest):.2g}"
        )

    bound = 0.0 if A.positive_semidefinite else -math.inf
    log = lambda x: torch.log(x + damping)  # noqa: E731
    return Scalar(log, f"log(x + {damping:g})", least=-damping, open=True, bound=bound, refusal=refused)
