"""Fisher matrices: outer products of gradients, of the data's own labels or of labels drawn from the model.

Both are J^T B J with B made of outer products in the outputs, so they cost what a Gauss-Newton product costs and
never hold per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from landscape.objective.evaluation import Evaluation
from landscape.objective.losses import class_dim
from landscape.objective.objective import Objective
from landscape.operators.gauss_newton import JacobianClaim, JacobianOperator
from landscape.operators.hessian import SlopeClaim
from landscape.operators.output_curvature import Curvature, known_loss, outer_products
from landscape.operators.output_roots import Root
from landscape.operators.self_check import Claims
from landscape.operators.units import Per, unit_slopes
from landscape.randomness import drawn_seed

_SAMPLED = ("cross_entropy", "mse", "bce_with_logits")


class EmpiricalFisher(JacobianOperator):
    """E = sum_u c_u g_u g_u^T / sum_u c_u, `(n, n)`, with g_u the gradient of unit u's own mean loss.

    A unit is one loss term (a token, an element: `per="term"`, c = its weight in the mean) or one sample along the
    first dimension of the outputs (`per="sample"`, c = the weight of its terms). Terms need a loss of torch's own;
    for other losses samples are the terms.

    Example:
        >>> import torch
        >>> from landscape import EmpiricalFisher, Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.ones(2, 1)))
        >>> with f.at(torch.zeros(2)):  # the gradients of the two terms are (-2, 0) and (0, -2)
        ...     print(EmpiricalFisher(f).to_dense())
        tensor([[2., 0.],
                [0., 2.]])
    """

    claims: Claims = (JacobianClaim, SlopeClaim)

    def __init__(self, objective: Objective, per: Per = "term") -> None:
        if per not in ("term", "sample"):
            raise ValueError(f'per is "term" or "sample", not {per!r}')
        super().__init__(objective)
        self.per = per

    def restrict(self, names: Iterable[str] | str) -> Self:
        """The same matrix for some of the parameters."""
        return type(self)(self.objective.restrict(names), self.per)

    def _curvature(self, e: Evaluation) -> Curvature:
        return outer_products(*self._slopes(e))

    @override
    def root(self, e: Evaluation) -> Root:
        return Root.of_outer_products(*self._slopes(e))

    def _slopes(self, e: Evaluation) -> tuple[list[Tensor], Tensor, tuple[int, ...]]:
        """The terms' gradients in the outputs, their weights, and the dimensions that belong to one term."""
        slopes, weights, unit_dims = unit_slopes(e, self.per)
        weights = weights / e.weight
        for dim in unit_dims:  # broadcast over the outputs that belong to each unit
            weights = weights.unsqueeze(dim)
        return [slopes], weights.expand_as(slopes), unit_dims


class MonteCarloFisher(JacobianOperator):
    """The Fisher matrix with labels drawn from the model's own distribution, `(n, n)`: its mean is G.

    Categorical for cross-entropy, Gaussian for mean squared error (variance such that the mean is its Hessian),
    Bernoulli for binary cross-entropy with logits; other losses raise `TypeError`. The draws are fixed when the
    operator is made (`seed`), so it is one matrix for all products.

    Example:
        >>> import torch
        >>> from landscape import MonteCarloFisher, Objective
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> f = Objective(model, torch.nn.CrossEntropyLoss(), (torch.ones(1, 1), torch.zeros(1, dtype=torch.long)))
        >>> with f.at(torch.zeros(2)):  # both classes are as likely: every draw gives the same matrix
        ...     print(MonteCarloFisher(f, samples=2).to_dense())
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]])
    """

    def __init__(self, objective: Objective, samples: int = 1, generator: torch.Generator | None = None) -> None:
        known = known_loss(objective)
        if known is None or known.kind not in _SAMPLED:
            raise TypeError(
                f"labels can be drawn for {', '.join(_SAMPLED)} losses only: use EmpiricalFisher or GaussNewton"
            )
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        super().__init__(objective)
        self.samples = samples
        self.seed = objective.ranks.shared(drawn_seed(generator), 0)

    def restrict(self, names: Iterable[str] | str) -> Self:
        """The same matrix (the same draws) for some of the parameters."""
        other = type(self)(self.objective.restrict(names), self.samples)
        other.seed = self.seed
        return other

    def _curvature(self, e: Evaluation) -> Curvature:
        return outer_products(*self._slopes(e))

    @override
    def root(self, e: Evaluation) -> Root:
        return Root.of_outer_products(*self._slopes(e), centred=True)

    def _slopes(self, e: Evaluation) -> tuple[list[Tensor], Tensor, tuple[int, ...]]:
        """Gradients in the outputs for the labels drawn, their weights, and the dimensions that belong to one term."""
        known, outputs, targets = e.criterion.known, e.outputs, e.batch.targets
        assert known is not None
        scale = 1.0 / e.weight
        generator = torch.Generator().manual_seed((self.seed + 7919 * e.batch.index) % (1 << 63))
        if known.kind == "cross_entropy":
            dim = class_dim(outputs)
            p = outputs.softmax(dim)
            drawn = [categorical(p, dim, generator) for _ in range(self.samples)]
            slopes = [p - torch.zeros_like(p).scatter_(dim, labels, 1.0) for labels in drawn]
            weights = known.softmax_weights(outputs, targets).unsqueeze(dim)
            return slopes, (weights * (scale / self.samples)).expand_as(outputs), (dim,)
        if known.kind == "mse":
            slopes = [2**0.5 * _normal(outputs, generator) for _ in range(self.samples)]
            return slopes, torch.full_like(outputs, scale / self.samples), ()
        p = outputs.sigmoid()
        slopes = [p - (_uniform(p, generator) < p).to(p.dtype) for _ in range(self.samples)]
        return slopes, known.times_weights(torch.full_like(p, scale / self.samples), targets), ()


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like.device)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype).to(like.device)


def categorical(p: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Labels by inverse distribution function, so that a CPU generator gives the same ones on every device.

    They keep the dimension of the classes, of size 1.
    """
    u = _uniform(p.select(dim, 0), generator).unsqueeze(dim)
    return (p.double().cumsum(dim) < u).sum(dim, keepdim=True).clamp_max(p.shape[dim] - 1)
