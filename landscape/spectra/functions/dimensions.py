"""How many parameters a matrix says that data determine: effective dimensions, which are traces of functions of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import BasisChoice
from landscape.spectra.callbacks import Callback
from landscape.spectra.carried import carries_check
from landscape.spectra.functions.results import SpectralSum
from landscape.spectra.functions.scalar import Scalar
from landscape.spectra.functions.spectral_sum import Asked, spectral_sum
from landscape.spectra.trace import trace


@carries_check
def effective_dimension(
    A: LinearOperator,
    damping: float,
    *,
    rtol: float | None = None,
    matvecs: int | None = None,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> SpectralSum:
    """tr A (A + damping I)^-1, the sum of lambda / (lambda + damping), with its error.

    The number of eigenvalues that are large beside the damping (a prior precision, a weight decay), MacKay's effective
    number of well-determined parameters (Maddox, Benton, Wilson, arXiv 2003.02139).

    Args:
        A: positive semi-definite, or at least A + damping I positive definite.
        damping: positive, in the units of A.
        rtol, matvecs, basis, generator, callback: as for `trace_of`.

    Raises:
        ValueError: damping <= 0, or a Ritz value of A below -damping was met; it is named.
        MemoryError, FloatingPointError: as `trace_of`.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import effective_dimension
        >>> A = MatrixOperator(torch.diag(torch.tensor([1e4, 1.0, 0.0])))
        >>> round(effective_dimension(A, 1.0).value, 3)
        1.5
    """
    if not (damping > 0 and math.isfinite(damping)):
        raise ValueError(f"damping must be positive and finite, not {damping}")

    bound = 0.0 if A.positive_semidefinite else -math.inf
    f = Scalar(lambda x: x / (x + damping), "x / (x + damping)", -damping, True, bound, partial(_indefinite, damping))
    return spectral_sum(A, f, Asked(rtol, matvecs, basis, generator, callback, "effective dimension"))


@carries_check
def local_effective_dimension(
    F: LinearOperator,
    samples: float,
    *,
    gamma: float = 1.0,
    matvecs: int | None = None,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> SpectralSum:
    """The Fisher effective dimension at one point: log det(I + kappa F') / log kappa, with its error.

    kappa = gamma samples / (2 pi log samples), F' = n F / tr F; the local effective dimension of Abbas, Sutter, Figalli
    and Woerner (arXiv 2112.04807) in the limit of a small ball around the parameters. Its trace and its
    log determinant have products of their own; of the error of the trace, what it does to the log determinant at most.

    Args:
        F: a Fisher matrix, `MonteCarloFisher`, `EmpiricalFisher` or `GaussNewton`, of which the scale does not matter.
        samples: the size of the data, with kappa > 1: at least 19 where gamma is 1.
        gamma: in (0, 1].
        matvecs: products for each of the two; default 500, or n if that is less.
        basis, generator, callback: as for `trace_of`.

    Raises:
        ValueError: gamma outside (0, 1], samples so few that kappa <= 1, a matrix whose trace is not positive or that
            has a negative Ritz value.
        MemoryError, FloatingPointError: as `trace_of`.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import local_effective_dimension
        >>> round(local_effective_dimension(MatrixOperator(torch.eye(5)), samples=1000).value, 3)
        5.068
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma lies in (0, 1], not {gamma}")
    kappa = gamma * samples / (2 * math.pi * math.log(samples)) if samples > 1 else 0.0
    if not kappa > 1:
        raise ValueError(
            f"{samples} samples make kappa = gamma samples / (2 pi log samples) = {kappa:.3g}: it has to exceed 1"
        )
    n = F.shape[0]
    asked = Asked(None, matvecs, basis, generator, callback, "effective dimension")
    size = trace(F, matvecs=asked.limit(n), basis=basis, generator=generator, callback=callback)
    if not size.value > 2 * size.stderr:
        raise ValueError(f"a Fisher matrix has a positive trace, that of F is {size.value:.3g} +- {size.stderr:.2g}")
    damping = size.value / (kappa * n)
    bound = 0.0 if F.positive_semidefinite else -math.inf
    f = Scalar(lambda x: torch.log1p(x / damping), "log(1 + x)", -damping, True, bound, partial(_indefinite, damping))
    found = spectral_sum(F, f, asked)
    # d log det / d log(tr F) = -tr F (F + damping I)^-1, and x / (1 + x) <= log(1 + x)
    error = found.stderr + min(n, abs(found.value)) * size.stderr / size.value
    return replace(
        found,
        value=found.value / math.log(kappa),
        stderr=error / math.log(kappa),
        quadrature=found.quadrature / math.log(kappa),
        matvecs=found.matvecs + size.matvecs,
        converged=found.converged and size.converged,
        seed=size.seed,
    )


def _indefinite(damping: float, lowest: float, slack: float) -> str:
    return (
        f"A + {damping:.3g} I is not positive definite: a Ritz value of A of {lowest:.3g} was met; an effective "
        f"dimension needs a damping above {slack - lowest:.2g}, or a positive semi-definite matrix, such as GaussNewton"
    )
