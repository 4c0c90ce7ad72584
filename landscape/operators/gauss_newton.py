"""The generalised Gauss-Newton matrix G = J^T (d2 loss / d outputs2) J, and the Jacobian products behind it.

A batch's graph is kept (`JacobianGraph`); where none can be, one pass in forward mode builds it and gives J v.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import forward_ad
from typing_extensions import override

from landscape.objective.batch import Batch
from landscape.objective.evaluation import Evaluation
from landscape.objective.losses import CONVEX
from landscape.objective.objective import Objective
from landscape.operators.autograd import dual_level, duals, vjp
from landscape.operators.curvature import ObjectiveOperator
from landscape.operators.jacobian_graph import JacobianGraph, forward_is_reverse, hold_forward
from landscape.operators.outline import norm, outline_of_outputs
from landscape.operators.output_curvature import Curvature, known_loss, loss_hessian, nothing
from landscape.operators.output_roots import Root, loss_root
from landscape.operators.self_check import Claim, Claims, difference, seen

_LINEAR = (
    "zero by construction: the loss is linear in the model's outputs (its own loss, log-probabilities, absolute "
    "differences); for a matrix that is not, give a loss of the logits and forward=lambda model, x: ... returning them"
)


class JacobianClaim(Claim):
    """J v of a model's outputs, against differences of them."""

    def __init__(self, objective: Objective, v: Tensor) -> None:
        self._objective, self._v = objective, v

    def product(self) -> Tensor:
        """The outputs' shape, by differentiating J^T u in u."""
        with self._objective.measuring():
            e = next(self._objective.evaluations())
            found = JacobianGraph(self._objective, e, lambda U: U).by_reverse(self._v.unsqueeze(0))[0]
        return outline_of_outputs(self._objective, found)

    def difference(self, ahead: float, behind: float) -> Tensor:
        """The outputs' shape."""
        return difference(self._objective, self._v, ahead, behind, self._outputs)

    def _outputs(self) -> Tensor:
        with self._objective.measuring(), torch.no_grad():
            outputs = next(self._objective.evaluations()).z.detach()
        return outline_of_outputs(self._objective, outputs)


class LossClaim(Claim):
    """B u of a loss in the outputs, against differences of its slope there; u is fixed and random."""

    def __init__(self, objective: Objective, v: Tensor) -> None:
        self._objective = objective
        with objective.measuring(), torch.no_grad():
            self._e = next(objective.evaluations()).detach()
        outputs = self._e.outputs
        u = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(outputs)
        # as long, relative to the outputs, as v is to the parameters
        self._u = u * (outputs.norm() or 1.0) / (u.norm() * (norm(objective, objective.theta()) or 1.0))

    def product(self) -> Tensor:
        """The outputs' shape."""
        with self._objective.measuring():
            found = loss_hessian(self._e)(self._u.unsqueeze(0))[0]
        return outline_of_outputs(self._objective, found)

    def difference(self, ahead: float, behind: float) -> Tensor:
        """The outputs' shape."""
        with self._objective.measuring():
            slopes = [self._slope(step * self._u) for step in (ahead, behind)]
        return outline_of_outputs(self._objective, (slopes[0] - slopes[1]) / (ahead - behind))

    def _slope(self, moved: Tensor) -> Tensor:
        leaf = (self._e.outputs + moved).requires_grad_(True)
        return torch.autograd.grad(self._e.criterion(leaf, self._e.batch.targets), leaf)[0]


class OutputSlopeClaim(Claim):
    """|g| of a loss in the outputs, against differences of its values along g: one scaled as a whole shows."""

    decides = False  # near a minimum it cannot be told, and nothing else is in doubt for that

    def __init__(self, objective: Objective, v: Tensor) -> None:
        self._objective = objective
        with objective.measuring(), torch.no_grad():
            self._e = next(objective.evaluations()).detach()
        with objective.measuring():
            leaf = self._e.outputs.clone().requires_grad_(True)
            loss = self._e.criterion(leaf, self._e.batch.targets)
            (g,) = torch.autograd.grad(loss, leaf)
        self._norm = g.norm()
        self._rounding = torch.finfo(g.dtype).eps * abs(float(loss.detach()))
        # as long, relative to the outputs, as the steps are to the parameters
        length = (self._e.outputs.norm() or 1.0) / (norm(objective, objective.theta()) or 1.0)
        self._unit, self._length = g / (self._norm or 1.0), float(length)

    def product(self) -> Tensor:
        """`(1,)`."""
        return outline_of_outputs(self._objective, self._norm.reshape(1))

    def difference(self, ahead: float, behind: float) -> Tensor:
        """`(1,)`; nan where the values differ by no more than rounding."""
        with self._objective.measuring():
            values = [self._value(step * self._length) for step in (ahead, behind)]
        distance = (ahead - behind) * self._length
        slope = ((values[0] - values[1]) / distance).reshape(1)
        return outline_of_outputs(self._objective, seen(slope, self._norm, distance, self._rounding))

    def _value(self, step: float) -> Tensor:
        moved = self._e.outputs + step * self._unit
        return self._e.criterion(moved, self._e.batch.targets).detach()


class JacobianOperator(ObjectiveOperator):
    """J^T B J for a block-diagonal B in the space of a batch's outputs. A subclass says what B is."""

    claims: Claims = (JacobianClaim,)
    positive_semidefinite = True
    zero = ", as it is where no chosen parameter moves an output"

    def _curvature(self, e: Evaluation) -> Curvature:
        """B for the batch mean of the loss at outputs without a graph (`Evaluation.detach`)."""
        raise NotImplementedError

    def root(self, e: Evaluation) -> Root:
        """Columns r_c with B = sum of r_c r_c^T, in which the terms of the loss do not see each other."""
        raise NotImplementedError

    def _graph(self, e: Evaluation) -> JacobianGraph:
        outputs = e.detach()
        e.loss()  # says so when the loss is no scalar or has no graph
        curvature, carried = self._curvature(outputs) if e.weight else nothing, e.carried
        return JacobianGraph(self.objective, e, curvature if carried == 1.0 else lambda U: carried * curvature(U))

    def _rebuilt_products(self, batch: Batch, V: Tensor) -> tuple[Tensor, float]:
        """One dual forward pass gives the outputs' graph and J v together: 5/3 of a gradient instead of 7/3."""
        objective = self.objective
        if len(V) > 1 or objective.sharded or objective.tuning.refused("dual"):
            return super()._rebuilt_products(batch, V)
        try:
            return self._dual_products(batch, V)
        except (RuntimeError, NotImplementedError):  # an operation without forward-mode derivative, or with another
            objective.tuning.refuse("dual")
            return super()._rebuilt_products(batch, V)

    def _dual_products(self, batch: Batch, V: Tensor) -> tuple[Tensor, float]:
        objective = self.objective
        with dual_level():
            e = objective.evaluate(batch, duals(objective.leaves(), objective.split(V[0])))
            outputs, tangent = forward_ad.unpack_dual(e.z)
        if tangent is None or not e.weight:
            return torch.zeros_like(V), e.weight
        if not forward_is_reverse(outputs):
            raise NotImplementedError
        pushed = tangent.detach().unsqueeze(0)
        bent = self._curvature(replace(e.single, outputs=outputs).detach())(pushed)
        products = objective.join(vjp([outputs], e.leaves, [bent[0]])).unsqueeze(0)
        hold_forward(V, pushed, bent, products)
        return products, e.weight


class GaussNewton(JacobianOperator):
    """G = J^T (d2 loss / d outputs2) J of an `Objective`, `(n, n)`; positive semi-definite for convex losses.

    The outputs are the tensors that the loss uses, all of them where there are several. A loss that a model computes
    inside is recognised as a loss of its `logits` (models of `transformers`); one that is not raises `TypeError`. The
    loss's second derivative is exact: closed form for cross-entropy, mean squared error and binary cross-entropy with
    logits, automatic otherwise.

    Attributes:
        note: says so where G is zero since the loss is (piecewise) linear in the outputs (from the first product on)

    Example:
        >>> import torch
        >>> from landscape import GaussNewton, Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1)))
        >>> GaussNewton(f).restrict("weight").to_dense()
        tensor([[1., 0.],
                [0., 9.]])
    """

    zero = (
        ", as it is where the loss is linear in the outputs (L1, hinge, a model that returns its own loss) or no "
        "parameter moves them; the Hessian need not be"
    )

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        known = known_loss(objective)
        # a loss of the user's own may be concave somewhere in the outputs
        self.positive_semidefinite = not objective.ranks.any(known is None or known.kind not in CONVEX)
        self.note: str | None = None
        if objective.ranks.any(known is None):
            self.claims = (JacobianClaim, LossClaim, OutputSlopeClaim)

    def _curvature(self, e: Evaluation) -> Curvature:
        curvature = loss_hessian(e)
        self.note = _LINEAR if curvature is nothing else None
        return curvature

    @override
    def root(self, e: Evaluation) -> Root:
        return loss_root(e, self._curvature(e))
