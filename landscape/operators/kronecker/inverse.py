"""(K + damping I)^-1 of a matrix of Kronecker products, by the eigenvectors of its factors."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.kronecker.blocks import Spectrum
from landscape.operators.kronecker.factored import Factored
from landscape.operators.linear import LinearOperator

Method = Literal["exact", "factored"]


class FactoredOperator(LinearOperator):
    """An operator that is made of Kronecker products.

    Attributes:
        separable: all blocks are products of two factors.
    """

    separable: bool = True

    def factored(self) -> Factored:
        """The blocks as the model stands: the same object as long as they are the same."""
        raise NotImplementedError


class DampedInverse(LinearOperator):
    """(K + damping I)^-1, `(n, n)`: made by `KFAC.inverse`. It follows K, and with it the model.

    Attributes:
        damping: that was asked for.
        method: "exact", or "factored": (B + d_B I)^-1 (x) (A + d_A I)^-1 with d_A d_B = damping, another matrix.
    """

    positive_semidefinite = True

    def __init__(self, of: FactoredOperator, damping: float, method: Method = "exact") -> None:
        super().__init__(of.shape[0], of.dtype, of.device)
        self.space = of.space
        if method not in ("exact", "factored"):
            raise ValueError(f'method is "exact" or "factored", not {method!r}')
        if method == "factored" and not of.separable:
            raise ValueError('method="factored" is for KFAC: the eigenvalues of EKFAC are no products of two')
        self.damping, self.method, self._of = float(damping), method, of
        self._looked_at: Factored | None = None
        self._factored()

    @override
    def _measured_noise(self) -> float:
        return self._of.noise

    def _factored(self) -> Factored:
        """Those of K now. Raises `ValueError` for a damping that does not make K invertible."""
        now = self._of.factored()
        if now is not self._looked_at:
            require_invertible(now, self.damping)
            now.spectra  # noqa: B018 found here, so that products are alike
            self._looked_at = now
        return now

    def _matmat(self, V: Tensor) -> Tensor:
        inverted = self._exact if self.method == "exact" else self._by_factors
        at_zero = 1.0 / self.damping if self.damping else 0.0
        return self._factored().apply(inverted, at_zero, V.T.contiguous()).T

    def _exact(self, part: Spectrum) -> Tensor:
        return 1.0 / (part.values + self.damping)

    def _by_factors(self, part: Spectrum) -> Tensor:
        """pi^2 = (tr A / dim A) / (tr B / dim B) shares the damping out (1503.05671, section 6.3)."""
        if part.layer.exact:
            return self._exact(part)
        A, B = part.A.values, part.B.values
        means = A.mean(1), B.mean(1)
        pi = (means[0] / means[1]).sqrt().reshape(-1, 1)
        pi = torch.where(torch.isfinite(pi) & (pi > 0), pi, torch.ones_like(pi))
        root = math.sqrt(self.damping)
        return 1.0 / ((B + root / pi).unsqueeze(2) * (A + root * pi).unsqueeze(1))


def require_invertible(K: Factored, damping: float) -> None:
    """Raises `ValueError` for a damping that is negative, or 0 where K is singular."""
    if not damping >= 0.0 or not math.isfinite(damping):
        raise ValueError(f"damping must be positive, not {damping}")
    if damping == 0.0:
        values = torch.cat([part.values.reshape(-1) for part in K.spectra]) if K.blocks else torch.zeros(0)
        largest = float(values.max()) if len(values) else 0.0
        zero = int((values <= K.size * torch.finfo(torch.float64).eps * largest).sum()) + K.uncovered
        if zero:
            raise ValueError(f"the matrix is singular ({zero} of {K.size} eigenvalues are 0): give a positive damping")
