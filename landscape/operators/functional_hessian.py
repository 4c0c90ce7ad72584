"""The functional part of the Hessian: H - G = sum_c (d loss / d output_c) d2 output_c / d theta2.

It is the Hessian of <s, outputs(theta)> with the loss's slope s in the outputs held fixed: what the Gauss-Newton
matrix leaves out, zero where the network is linear in its parameters or the loss is flat in the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.operators.curvature import Graph, ObjectiveOperator
from landscape.operators.gauss_newton import GaussNewton, JacobianClaim
from landscape.operators.hessian import GradientClaim, GradientGraph, SlopeClaim
from landscape.operators.self_check import Claims


class FunctionalHessian(ObjectiveOperator):
    """H - G of an `Objective`, `(n, n)`, symmetric and in general indefinite.

    Example:
        >>> import torch
        >>> from landscape import FunctionalHessian, Objective
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.tensor([1.0, 2.0])):  # f = (a b)^2
        ...     print(FunctionalHessian(f).to_dense())
        tensor([[0., 4.],
                [4., 0.]])
    """

    claims: Claims = (GradientClaim, SlopeClaim, JacobianClaim)
    zero = ", as it is where the outputs are linear in the parameters (piecewise, with ReLU)"

    def __init__(self, objective: Objective) -> None:
        if objective.sharded:
            raise TypeError(
                "FunctionalHessian is not for sharded models: take Hessian(f) - GaussNewton(f), the same matrix"
            )
        super().__init__(objective)

    def _graph(self, e: Evaluation) -> Graph:
        if not e.weight:
            return GradientGraph(self.objective, e.loss())
        single = e.detach()
        held = single.outputs.clone().requires_grad_(True)
        loss = single.criterion(held, single.batch.targets)
        if not loss.requires_grad:
            raise ValueError("the loss has no graph back to the outputs: it is computed under no_grad or detached")
        slope, *direct = torch.autograd.grad(loss, [held, *e.leaves], allow_unused=True)
        beside = not isinstance(e.outputs, Tensor) and e.form is not None and not e.form.whole
        if beside or any(g is not None for g in direct):  # a penalty on the parameters inside the loss belongs to H - G
            return _Difference(GradientGraph(self.objective, e.loss()), GaussNewton(self.objective)._graph(e))
        slope = torch.zeros_like(held) if slope is None else slope
        return GradientGraph(self.objective, (slope * e.tensor).sum())


class _Difference:
    """H - G by subtraction, where the loss depends on the parameters not only through the outputs."""

    def __init__(self, hessian: Graph, gauss_newton: Graph) -> None:
        self._hessian, self._gauss_newton = hessian, gauss_newton

    def roots(self) -> list[Tensor]:
        return self._hessian.roots() + self._gauss_newton.roots()

    def part(self, objective: Objective, places: Sequence[int]) -> Graph:
        return _Difference(self._hessian.part(objective, places), self._gauss_newton.part(objective, places))

    def products(self, V: Tensor) -> Tensor:
        return self._hessian.products(V) - self._gauss_newton.products(V)
