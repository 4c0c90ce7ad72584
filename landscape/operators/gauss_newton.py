"""The generalised Gauss-Newton matrix G = J^T (d2 loss / d outputs2) J, and the Jacobian products behind it.

J v comes from the kept graph by differentiating J^T u in u (reverse over reverse, no forward pass), or from one
forward-mode pass; J^T w is one reverse pass. The two ways are timed on the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from landscape.objective.batch import Batch
from landscape.objective.evaluation import output_tensor
from landscape.objective.losses import CONVEX, Curvature, loss_hessian
from landscape.objective.objective import Objective
from landscape.operators.autograd import Jvp, _dual_level, _dual_outputs, refuse_dead_ends, transposed
from landscape.operators.curvature import ObjectiveOperator
from landscape.operators.tuning import fastest


class JacobianOperator(ObjectiveOperator):
    """J^T B J for a block-diagonal B in the space of a batch's outputs. A subclass says what B is."""

    positive_semidefinite = True

    def _curvature(self, batch: Batch, outputs: Tensor, count: float) -> Curvature:
        """B for the batch mean of the loss, as a function of `(k, *outputs.shape)`."""
        raise NotImplementedError

    def _graph(self, batch: Batch, outputs: Any, count: float) -> JacobianGraph:
        outputs = output_tensor(outputs)
        self.objective.differentiable_loss(outputs, batch)  # says so when the loss is no scalar or has no graph
        curvature = self._curvature(batch, outputs.detach(), count)
        return JacobianGraph(self.objective, batch, self.objective.attached(outputs), curvature)

    def _rebuilt_products(self, batch: Batch, V: Tensor) -> tuple[Tensor, float]:
        """One dual forward pass gives the outputs' graph and J v together: 5/3 of a gradient instead of 7/3."""
        if len(V) > 1 or self.objective.ways.get("dual") == "no":
            return super()._rebuilt_products(batch, V)
        try:
            with _dual_level():
                dual = _dual_outputs(self.objective, batch, self.objective.split(V[0]), self.objective.leaves())
                outputs, tangent = forward_ad.unpack_dual(dual)
        except (RuntimeError, NotImplementedError):  # an operation without forward-mode derivative
            self.objective.ways["dual"] = "no"
            return super()._rebuilt_products(batch, V)
        count = self.objective.terms(outputs, batch)
        if not count:
            return torch.zeros_like(V), 0.0
        if tangent is None:
            return torch.zeros_like(V), count
        bent = self._curvature(batch, outputs.detach(), count)(tangent.detach().unsqueeze(0))
        return transposed(self.objective, outputs, bent, batched=False), count


class GaussNewton(JacobianOperator):
    """G = J^T (d2 loss / d outputs2) J of an `Objective`, `(n, n)`; positive semi-definite for convex losses.

    Needs a model (or `forward=`) that returns one tensor. The loss's second derivative is exact: closed form for
    cross-entropy, mean squared error and binary cross-entropy with logits, automatic otherwise.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        known = objective.known.kind if objective.known is not None else None
        # a loss of the user's own may be concave somewhere in the outputs
        self.positive_semidefinite = known in CONVEX

    def _curvature(self, batch: Batch, outputs: Tensor, count: float) -> Curvature:
        return output_curvature(self.objective, batch, outputs)


def output_curvature(objective: Objective, batch: Batch, outputs: Tensor) -> Curvature:
    """d2 loss / d outputs2 of the batch's own loss, as a function of `(k, *outputs.shape)`."""
    return loss_hessian(
        objective.known,
        lambda o: objective.batch_loss(o, batch),
        outputs,
        batch.targets,
        objective.count(outputs, batch),
    )


class JacobianGraph:
    """A batch's outputs with their graph: products with J and its transpose, and with J^T B J."""

    def __init__(self, objective: Objective, batch: Batch, outputs: Tensor, curvature: Curvature) -> None:
        self._objective = objective
        self._batch = batch
        self._outputs = outputs
        self._curvature = curvature
        self._leaves = objective.leaves()
        self._cotangent: Tensor | None = None
        self._live: list[tuple[int, Tensor]] = []

    def roots(self) -> list[Tensor]:
        """The outputs, and J^T u where it is kept."""
        return [self._outputs, *(g for _, g in self._live)]

    def products(self, V: Tensor) -> Tensor:
        """J^T B J V for rows `(k, n)`, in the way that was fastest when the first batch was timed."""
        return self._fastest(V, "jacobian", self._through)

    def push(self, V: Tensor) -> Tensor:
        """J V for rows `(k, n)`: `(k, *outputs.shape)`."""
        return self._fastest(V, "push", lambda V, jvp, batched: jvp(V))

    def pull(self, W: Tensor) -> Tensor:
        """J^T W for cotangents `(k, *outputs.shape)`: rows `(k, n)`."""
        return transposed(self._objective, self._outputs, W, batched=False)

    def _fastest(self, V: Tensor, key: str, product: Callable[[Tensor, Jvp, bool], Tensor]) -> Tensor:
        ways: dict[str, Callable[[], Tensor]] = {
            "reverse": lambda: product(V, self._reverse_loop, False),
            "forward": lambda: product(V, self._forward_loop, False),
        }
        if len(V) > 1:
            ways["batched"] = lambda: product(V, self._reverse_batched, True)
        key = key if len(V) == 1 else f"{key}-block"
        known = self._objective.ways
        if key not in known:
            known[key], result = fastest(ways, V.device)
            if known[key] == "forward":
                self._cotangent, self._live = None, []
            return result
        return ways[known[key]]()

    def _through(self, V: Tensor, jvp: Jvp, batched: bool) -> Tensor:
        return transposed(self._objective, self._outputs, self._curvature(jvp(V)), batched)

    # -- J V, shaped (k, *outputs.shape) ---------------------------------------------------------------------

    def _forward_loop(self, V: Tensor) -> Tensor:
        rows = []
        for v in V:
            with torch.no_grad(), _dual_level():
                primals = [p.detach() for p in self._leaves]
                dual = _dual_outputs(self._objective, self._batch, self._objective.split(v), primals)
                tangent = forward_ad.unpack_dual(dual).tangent
                rows.append(torch.zeros_like(self._outputs) if tangent is None else tangent)
        return torch.stack(rows)

    def _reverse_loop(self, V: Tensor) -> Tensor:
        return torch.stack([self._reverse(self._objective.split(v), batched=False) for v in V])

    def _reverse_batched(self, V: Tensor) -> Tensor:
        return self._reverse(self._objective.split(V), batched=True)

    def _reverse(self, pieces: Sequence[Tensor], batched: bool) -> Tensor:
        if self._cotangent is None:
            self._cotangent = torch.zeros_like(self._outputs, requires_grad=True)
            pulled = torch.autograd.grad(
                self._outputs, self._leaves, self._cotangent, create_graph=True, allow_unused=True
            )
            self._live = [(i, g) for i, g in enumerate(pulled) if g is not None and g.requires_grad]
            refuse_dead_ends(g for _, g in self._live)
        if not self._live:
            return self._outputs.new_zeros(*(pieces[0].shape[:1] if batched else ()), *self._outputs.shape)
        (pushed,) = torch.autograd.grad(
            [g for _, g in self._live],
            self._cotangent,
            grad_outputs=[pieces[i].to(g.dtype) for i, g in self._live],
            retain_graph=True,
            is_grads_batched=batched,
        )
        return pushed.detach()
