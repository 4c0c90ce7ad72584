"""A batch's outputs with their graph, and the products with their Jacobian J.

J v comes from the kept graph by differentiating J^T u in u (reverse over reverse, no forward pass), or from one
forward-mode pass; J^T w is one reverse pass. The ways are timed on the first batch. What autograd's gradients are made
of is the reverse mode: where torch's rules for the two modes differ, forward mode is left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from landscape.objective.evaluation import Evaluation
from landscape.objective.graph import nodes
from landscape.objective.objective import Objective
from landscape.operators.autograd import dual_level, duals, gradient_graph, stack, vjp
from landscape.operators.output_curvature import Curvature

_ROUNDINGS, _COARSE = 1e3, 1e-2  # of what the two modes may differ by: in roundings, and at most


class JacobianGraph:
    """A batch's outputs with their graph: products with J, with its transpose, and with J^T B J."""

    def __init__(self, objective: Objective, e: Evaluation, curvature: Curvature) -> None:
        self._objective = objective
        self._batch = e.batch
        self._leaves = e.leaves
        self._outputs = e.tensor
        self._curvature = curvature
        self._cotangent: Tensor | None = None  # u, where J^T u is kept
        self._pullback: tuple[Tensor | None, ...] = ()  # J^T u, with its graph
        self._whole: tuple[JacobianGraph, Sequence[int]] | None = None  # whose part this is
        self._held = False  # J v by forward mode has been compared with J^T

    def part(self, objective: Objective, places: Sequence[int]) -> JacobianGraph:
        """The diagonal block of some of the leaves, those of a restricted objective, on the same graph."""
        other = copy.copy(self)
        other._objective, other._whole = objective, (self, places)
        other._leaves = [self._leaves[i] for i in places]
        return other

    def roots(self) -> list[Tensor]:
        """The outputs, and J^T u where it is kept."""
        return [self._outputs, *(g for g in self._pullback if g is not None)]

    def products(self, V: Tensor) -> Tensor:
        """J^T B J V for rows `(k, n)`, in the way that was fastest when the first batch was timed."""

        def forward() -> Tensor:
            pushed = self._forward(V)
            bent = self._curvature(pushed)
            products = self.vjp(bent)
            hold_forward(V, pushed, bent, products)
            return products

        return self._fastest("jacobian", V, lambda U, batched: self.vjp(self._curvature(U), batched), forward)

    def jvp(self, V: Tensor) -> Tensor:
        """J V for rows `(k, n)`: `(k, *outputs.shape)`."""

        def forward() -> Tensor:
            pushed = self._forward(V)
            if not self._held:
                hold_forward(V, pushed, pushed, self.vjp(pushed))
                self._held = True
            return pushed

        return self._fastest("jvp", V, lambda U, batched: U, forward)

    def vjp(self, W: Tensor, batched: bool = False) -> Tensor:
        """J^T W for cotangents `(k, *outputs.shape)`: rows `(k, n)`, one after the other or `batched`."""
        if batched:
            return self._objective.join(vjp([self._outputs], self._leaves, [W], batched))
        return stack([self._objective.join(vjp([self._outputs], self._leaves, [w])) for w in W])

    def _fastest(
        self, key: str, V: Tensor, then: Callable[[Tensor, bool], Tensor], forward: Callable[[], Tensor]
    ) -> Tensor:
        """`then(J V, batched)` with J V from the graph of J^T u, or `forward()`, which is the same by forward mode."""
        key = f"{key}-block" if len(V) > 1 else key
        tuning = self._objective.tuning
        first = tuning.choice(key) is None
        ways: dict[str, Callable[[], Tensor]] = {"reverse": lambda: then(self.by_reverse(V), False)}
        asked = self._whole is None and (first or tuning.choice(key) == "forward")  # it is no cheaper for a part
        if asked and self._forward_is_reverse:
            ways["forward"] = forward
        if len(V) > 1:
            ways["batched"] = lambda: then(self.by_reverse(V, True), True)
        result = tuning.fastest(key, ways)
        if first and tuning.choice(key) == "forward":
            self._cotangent, self._pullback = None, ()
        return result

    @cached_property
    def _forward_is_reverse(self) -> bool:
        return forward_is_reverse(self._outputs)

    def _forward(self, V: Tensor) -> Tensor:
        rows = []
        for v in V:
            with torch.no_grad(), dual_level():
                given = duals([p.detach() for p in self._leaves], self._objective.split(v))
                outputs = self._objective.evaluate(self._batch, given).z
                tangent = forward_ad.unpack_dual(outputs).tangent
                rows.append(torch.zeros_like(self._outputs) if tangent is None else tangent)
        return torch.stack(rows)

    def by_reverse(self, V: Tensor, batched: bool = False) -> Tensor:
        """d/du <J^T u, v> = J v, since J^T u is linear in u."""
        cotangent, pullback = self._pulled_back()
        if batched:
            return vjp(pullback, [cotangent], self._objective.split(V), batched)[0].detach()
        rows = [vjp(pullback, [cotangent], self._objective.split(v))[0] for v in V]
        return torch.stack(rows).detach()

    def _pulled_back(self) -> tuple[Tensor, Sequence[Tensor | None]]:
        """u and J^T u, with its graph; a part takes that of the whole."""
        if self._whole is not None:
            whole, places = self._whole
            cotangent, pullback = whole._pulled_back()
            return cotangent, [pullback[i] for i in places]
        if self._cotangent is None:
            self._cotangent = torch.zeros_like(self._outputs, requires_grad=True)
            self._pullback = gradient_graph(self._outputs, self._leaves, self._cotangent)
        return self._cotangent, self._pullback


def forward_is_reverse(outputs: Tensor) -> bool:
    """Whether torch has one derivative of these outputs in both modes, as far as the graph tells.

    Reverse mode drops the gradient of an embedding's padding and divides by the frequency of an index where it is asked
    to, forward mode does neither; and a function of somebody's own has one rule written by hand for each.
    """
    return not any(_has_two_rules(node) for node in nodes([outputs]))


def _has_two_rules(node: Any) -> bool:
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return True
    if not node.name().startswith("Embedding"):
        return False
    no_padding = -1 % (1 << 64)
    return node._saved_scale_grad_by_freq or node._saved_padding_idx not in (-1, no_padding)


def hold_forward(V: Tensor, pushed: Tensor, bent: Tensor, products: Tensor) -> None:
    """Raise `RuntimeError` where <v, J^T w> is not <J v, w>, with J v by forward and J^T w by reverse mode.

    V and products, J^T w, are rows `(k, n)`; pushed, J v, and bent, w, are `(k, *outputs.shape)`.
    """
    pushed, bent = (U.reshape(len(V), -1).to(V.dtype) for U in (pushed, bent))
    apart = (torch.linalg.vecdot(V, products) - torch.linalg.vecdot(pushed, bent)).abs()
    size = pushed.norm(dim=1) * bent.norm(dim=1)
    if not bool((apart <= min(_COARSE, _ROUNDINGS * torch.finfo(V.dtype).eps) * size).all()):
        raise RuntimeError("forward mode has another derivative than reverse mode")
