"""The Hessian by central differences of gradients, for models that have no second derivatives.

H v is (grad f(theta + h v) - grad f(theta - h v)) / 2h. Rounding errs by about eps |grad| / h |v| and truncation by
h^2 |v|^2, so the step is scaled to the vector and to the parameters, and chosen once by trying a few.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.operators import LinearOperator
from landscape.state import Snapshot

# Steps tried on the first vector, as multiples of the textbook step eps^(1/3) |theta|.
_TRIED = (0.1, 1.0, 10.0, 100.0)


class FiniteDifferenceHessian(LinearOperator):
    """The Hessian of an `Objective` by two gradients a product, `(n, n)`.

    `noise` is measured at the first product: the relative disagreement of neighbouring step lengths (0.0 before).
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective.size, objective.dtype, objective.device, memory=objective.memory)
        self.objective = objective
        self._length: float | None = None
        self._snapshot: Snapshot | None = None

    def restrict(self, names: Iterable[str] | str) -> Self:
        """The same matrix for some of the parameters."""
        return type(self)(self.objective.restrict(names))

    def release(self) -> None:
        """Forget the step that was chosen; the next product chooses again."""
        self._length = None
        self._snapshot = None

    def _matmat(self, V: Tensor) -> Tensor:
        if self._snapshot is not None and not self.objective.unchanged(self._snapshot):
            self.release()
        theta = self.objective.theta()
        columns = []
        for v in V.T:
            norm = float(v.double().norm())
            if norm == 0.0:
                columns.append(torch.zeros_like(v))
                continue
            if self._length is None:
                self._snapshot = self.objective.snapshot()
                columns.append(norm * self._choose_length(theta, v / norm))
            else:
                columns.append(norm * self._difference(theta, v / norm, self._length))
        return torch.stack(columns, dim=-1)

    def _difference(self, theta: Tensor, direction: Tensor, length: float) -> Tensor:
        """H direction for a unit direction and a step of the given length."""
        with self.objective.at(theta + length * direction):
            ahead = self.objective.gradient()
        with self.objective.at(theta - length * direction):
            behind = self.objective.gradient()
        return (ahead - behind) / (2 * length)

    def _choose_length(self, theta: Tensor, direction: Tensor) -> Tensor:
        """Take the step whose product agrees best with its neighbours'; the disagreement is the noise."""
        eps = max(torch.finfo(self.dtype).eps, self.objective.rounding)
        scale = float(theta.double().norm()) or 1.0
        lengths = [factor * eps ** (1 / 3) * scale for factor in _TRIED]
        products = [self._difference(theta, direction, length) for length in lengths]
        norms = [max(float(p.double().norm()), torch.finfo(torch.float64).tiny) for p in products]
        gaps = [float((a - b).double().norm()) for a, b in itertools.pairwise(products)]
        relative = [gap / max(norms[i], norms[i + 1]) for i, gap in enumerate(gaps)]
        best = min(range(len(gaps)), key=lambda i: relative[i])
        self.noise = relative[best]
        # of the two that agree, the shorter errs by rounding and the longer by truncation: take their middle's better
        left = relative[best - 1] if best > 0 else float("inf")
        right = relative[best + 1] if best + 1 < len(gaps) else float("inf")
        chosen = best if left < right else best + 1
        self._length = lengths[chosen]
        return products[chosen]
