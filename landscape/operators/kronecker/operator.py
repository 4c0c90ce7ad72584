"""Operators that are made of Kronecker products: products, inverse, determinant, all eigenvalues, plain arrays."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.kronecker.inverse import DampedInverse, FactoredOperator, Method, require_invertible
from landscape.operators.kronecker.state import State, to_arrays


class KroneckerOperator(FactoredOperator):
    """What `KFAC`, `EKFAC` and those that were read from a file can do. A subclass says what `factored()` is now."""

    positive_semidefinite = True

    def _matmat(self, V: Tensor) -> Tensor:
        return self.factored().product(V.T.contiguous()).T

    @property
    def note(self) -> str | None:
        """What is kept otherwise than whole and exact, in words; None before the first product, "" for nothing."""
        raise NotImplementedError

    def inverse(self, damping: float, method: Method = "exact") -> DampedInverse:
        """(K + damping I)^-1 as an operator, by the eigenvectors of the factors (found once, in float64).

        "factored" damps the factors instead, (B + I sqrt(damping) / pi) (x) (A + I pi sqrt(damping)) (1503.05671,
        section 6.3): another matrix, which K-FAC's optimizers use. Raises `ValueError` for a damping that is negative,
        or 0 where K is singular.
        """
        return DampedInverse(self, damping, method)

    def logdet(self, damping: float) -> float:
        """log det(K + damping I); exact. Raises `ValueError` as `inverse`."""
        now = self.factored()
        require_invertible(now, damping)
        rest = now.uncovered * float(torch.tensor(damping, dtype=torch.float64).log()) if now.uncovered else 0.0
        return sum((float((part.values + damping).log().sum()) for part in now.spectra), rest)

    def trace(self) -> float:
        """tr K, exact, in float64."""
        return self.factored().trace

    def eigenvalues(self) -> Tensor:
        """All of them, `(n,)` float64 on the host, the largest first."""
        now = self.factored()
        zeros = torch.zeros(now.uncovered, dtype=torch.float64)
        return torch.cat([*(part.values.reshape(-1).cpu() for part in now.spectra), zeros]).sort(descending=True)[0]

    def state(self) -> State:
        """The factors as they are now, as plain numpy arrays by name: what files keep, and `from_state` takes."""
        return to_arrays(self.factored())

    def __repr__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"{super().__repr__()[:-1]}{self._told()}{note})"

    def _told(self) -> str:
        return ""
