"""The Hessian of the loss: H v = d/dtheta <grad f(theta), v>.

The first-order graph (the gradient as a function of the parameters) is built once per batch and differentiated
again for every vector: reverse over reverse, with the first reverse pass kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.memory import Memory
from landscape.objective.batch import Batch
from landscape.objective.objective import Objective
from landscape.objective.parameters import half_rounding, vector_dtype
from landscape.objective.state import Snapshot
from landscape.operators.autograd import live_gradients, refuse_dead_ends, second_derivative
from landscape.operators.curvature import ObjectiveOperator
from landscape.operators.linear import LinearOperator
from landscape.operators.tuning import fastest


class Hessian(ObjectiveOperator):
    """H = d2 f / d theta2 of an `Objective`, `(n, n)`, symmetric, in general indefinite."""

    def _graph(self, batch: Batch, outputs: Any, count: float) -> GradientGraph:
        loss = self.objective.differentiable_loss(outputs, batch)
        return GradientGraph(self.objective, loss)

    @staticmethod
    def from_loss(
        loss: Tensor, parameters: Iterable[Tensor] | Mapping[str, Tensor], *, memory: Memory = "auto"
    ) -> LossHessian:
        """The Hessian of one loss tensor in the parameters its graph was built on, `(n, n)`.

        For a training loop or a solver's closure, which has the loss in hand. The graph is kept and nothing is
        rebuilt, so a product after a change of the parameters raises `RuntimeError`.
        """
        return LossHessian(loss, parameters, memory=memory)


class GradientGraph:
    """The gradient of one batch's loss with its graph, ready to be differentiated for any number of vectors."""

    def __init__(self, objective: Objective, loss: Tensor) -> None:
        self._objective = objective
        self._leaves = objective.leaves()
        self._live = live_gradients(loss, self._leaves)

    def roots(self) -> list[Tensor]:
        """The gradients that depend on the parameters."""
        return [g for _, g in self._live]

    def products(self, V: Tensor) -> Tensor:
        """H_batch V for rows `(k, n)`. A block goes vector by vector or vectorised, whichever was faster at first."""
        ways = {"loop": lambda: self._loop(V), "batched": lambda: self._batched(V)}
        if len(V) == 1:
            return self._loop(V)
        known = self._objective.ways
        if "hessian" not in known:
            known["hessian"], result = fastest(ways, V.device)
            return result
        return ways[known["hessian"]]()

    def _loop(self, V: Tensor) -> Tensor:
        rows = [self._differentiate(self._objective.split(v), batched=False) for v in V]
        return torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0)

    def _batched(self, V: Tensor) -> Tensor:
        return self._differentiate(self._objective.split(V), batched=True)

    def _differentiate(self, pieces: Sequence[Tensor], batched: bool) -> Tensor:
        if not self._live:
            lead = pieces[0].shape[:1] if batched else ()
            return torch.zeros(*lead, self._objective.size, dtype=self._objective.dtype, device=pieces[0].device)
        products = second_derivative(self._live, self._leaves, pieces, batched)
        return self._objective.gather(products)


class LossHessian(LinearOperator):
    """The Hessian of one loss tensor; see `Hessian.from_loss`."""

    def __init__(
        self, loss: Tensor, parameters: Iterable[Tensor] | Mapping[str, Tensor], *, memory: Memory = "auto"
    ) -> None:
        named = dict(parameters) if isinstance(parameters, Mapping) else dict(enumerate(parameters))
        leaves = list(named.values())
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError("from_loss needs a scalar loss tensor")
        if not loss.requires_grad:
            raise ValueError(
                "the loss has no graph: compute it with gradients enabled, from parameters that require grad"
            )
        if not leaves or not all(isinstance(p, Tensor) and p.requires_grad for p in leaves):
            raise ValueError("from_loss needs the parameters of the loss: tensors that require grad")
        size = sum(p.numel() for p in leaves)
        super().__init__(size, vector_dtype(leaves), leaves[0].device, noise=half_rounding(leaves), memory=memory)
        self._loss: Tensor | None = loss
        self._leaves = leaves
        self._live: list[tuple[int, Tensor]] | None = None
        self._snapshot = Snapshot(leaves)
        self.names = [str(name) for name in named]

    def gradient(self) -> Tensor:
        """`(n,)`, from the graph that the products use."""
        with torch.inference_mode(False), torch.enable_grad():
            pieces = torch.autograd.grad(self._current(), self._leaves, create_graph=True, allow_unused=True)
            self._live = [(i, g) for i, g in enumerate(pieces) if g is not None and g.requires_grad]
            refuse_dead_ends(g for _, g in self._live)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self._leaves, pieces, strict=True)]
        return torch.cat([g.detach().reshape(-1).to(self.dtype) for g in filled])

    def _matmat(self, V: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            loss = self._current()
            if self._live is None:
                self._live = live_gradients(loss, self._leaves)
            columns = [self._product(v) for v in V.T]
        return torch.stack(columns, dim=-1)

    def _current(self) -> Tensor:
        if self._loss is None:
            raise RuntimeError("this operator was released together with the loss's graph: make a new one")
        if not self._snapshot.still_holds(self._leaves):
            raise RuntimeError("the parameters changed since this loss was computed: compute the loss again")
        return self._loss

    def _product(self, v: Tensor) -> Tensor:
        if not self._live:
            return torch.zeros_like(v)
        pieces = [
            part.reshape(p.shape)
            for part, p in zip(v.split([p.numel() for p in self._leaves]), self._leaves, strict=True)
        ]
        products = second_derivative(self._live, self._leaves, pieces, batched=False)
        return torch.cat([h.detach().reshape(-1).to(self.dtype) for h in products])

    def release(self) -> None:
        """Drop the gradient's graph; the loss's own stays with the caller and the next product rebuilds ours."""
        self._live = None
