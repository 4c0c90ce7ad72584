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
from typing_extensions import override

from landscape.objective.objective import Objective
from landscape.objective.state import Snapshot
from landscape.operators.linear import LinearOperator
from landscape.precision import accurate

# Steps tried on a random direction, as multiples of the textbook step eps^(1/3) |theta|.
_TRIED = (0.1, 1.0, 10.0, 100.0)


class FiniteDifferenceHessian(LinearOperator):
    """The Hessian of an `Objective` by two gradients a product, `(n, n)`.

    The step and `noise` are found together, with eight gradients, when either is first needed.

    Example:
        >>> import torch
        >>> from landscape import FiniteDifferenceHessian, Objective
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2).double(), torch.zeros(2, 1).double()))
        >>> (FiniteDifferenceHessian(f) @ torch.ones(2)).round(decimals=4)
        tensor([1., 1.], dtype=torch.float64)
    """

    def __init__(self, objective: Objective) -> None:
        self._length: float | None = None
        self._gap = 0.0
        self._snapshot: Snapshot | None = None
        if objective.sharded:
            raise TypeError("FiniteDifferenceHessian is not for sharded models: Hessian is exact there")
        super().__init__(objective.size, objective.dtype, objective.device, memory=objective.memory)
        self.space.ranks = objective.ranks
        self.objective = objective

    @override
    def _measured_noise(self) -> float:
        """Relative error of one product, as far as neighbouring step lengths disagree."""
        self._choose()
        return self._gap

    def restrict(self, names: Iterable[str] | str) -> Self:
        """The same matrix for some of the parameters."""
        return type(self)(self.objective.restrict(names))

    def release(self) -> None:
        """Nothing is kept between products but the step."""

    def _matmat(self, V: Tensor) -> Tensor:
        length = self._choose()
        theta = self.objective.theta()
        columns = []
        for v in V.T:
            norm = float(accurate(v).norm())
            columns.append(norm * self._difference(theta, v / norm, length) if norm else torch.zeros_like(v))
        return torch.stack(columns, dim=-1)

    def _difference(self, theta: Tensor, direction: Tensor, length: float) -> Tensor:
        """H direction for a unit direction and a step of the given length."""
        with self.objective.at(theta + length * direction):
            ahead = self.objective.gradient()
        with self.objective.at(theta - length * direction):
            behind = self.objective.gradient()
        return (ahead - behind) / (2 * length)

    def _choose(self) -> float:
        """The step whose product with a random direction agrees best with its neighbours'."""
        known = self._snapshot is not None and self._snapshot.holds()
        if self._length is not None and not self.objective.ranks.any(not known):
            return self._length
        self._snapshot = self.objective.snapshot()
        theta = self.objective.theta()
        eps = self.objective.rounding
        scale = float(accurate(theta).norm()) or 1.0
        direction = self.random(1, "rademacher", torch.Generator().manual_seed(0))[:, 0] / self.shape[0] ** 0.5
        lengths = [factor * eps ** (1 / 3) * scale for factor in _TRIED]
        products = [accurate(self._difference(theta, direction, length)) for length in lengths]
        tiny = torch.finfo(torch.float64).tiny
        gaps = [
            float((a - b).norm()) / max(float(a.norm()), float(b.norm()), tiny) for a, b in itertools.pairwise(products)
        ]
        best = min(range(len(gaps)), key=gaps.__getitem__)
        self._gap = gaps[best]
        # of the two that agree, take the one whose other neighbour is nearer as well
        left = gaps[best - 1] if best > 0 else float("inf")
        right = gaps[best + 1] if best + 1 < len(gaps) else float("inf")
        self._length = lengths[best if left < right else best + 1]
        return self._length
