"""The functional part of the Hessian: H - G = sum_c (d loss / d output_c) d2 output_c / d theta2.

It is the Hessian of <s, outputs(theta)> with the loss's slope s in the outputs held fixed: what the Gauss-Newton
matrix leaves out, zero where the network is linear in its parameters or the loss is flat in the outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from landscape.objective.batch import Batch
from landscape.objective.evaluation import output_tensor
from landscape.operators.curvature import Graph, ObjectiveOperator
from landscape.operators.gauss_newton import GaussNewton
from landscape.operators.hessian import GradientGraph


class FunctionalHessian(ObjectiveOperator):
    """H - G of an `Objective`, `(n, n)`, symmetric and in general indefinite."""

    def _graph(self, batch: Batch, outputs: Any, count: float) -> Graph:
        outputs = output_tensor(outputs)
        held = outputs.detach().clone().requires_grad_(True)
        loss = self.objective.batch_loss(held, batch)
        if not loss.requires_grad:
            raise ValueError("the loss has no graph back to the outputs: it is computed under no_grad or detached")
        slope, *direct = torch.autograd.grad(loss, [held, *self.objective.leaves()], allow_unused=True)
        if any(g is not None for g in direct):  # a penalty on the parameters inside the loss belongs to H - G
            return _Difference(self, batch, outputs, count)
        if slope is None or not outputs.requires_grad:
            return _Zero()
        return GradientGraph(self.objective, (slope * outputs).sum())


class _Difference:
    """H - G by subtraction, where the loss depends on the parameters not only through the outputs."""

    def __init__(self, operator: FunctionalHessian, batch: Batch, outputs: Tensor, count: float) -> None:
        objective = operator.objective
        self._hessian = GradientGraph(objective, objective.differentiable_loss(outputs, batch))
        self._gauss_newton = GaussNewton(objective)._graph(batch, outputs, count)

    def roots(self) -> list[Tensor]:
        return self._hessian.roots() + self._gauss_newton.roots()

    def products(self, V: Tensor) -> Tensor:
        return self._hessian.products(V) - self._gauss_newton.products(V)


class _Zero:
    def roots(self) -> list[Tensor]:
        return []

    def products(self, V: Tensor) -> Tensor:
        return torch.zeros_like(V)
