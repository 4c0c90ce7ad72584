"""OASIS: descent in the metric of the Hessian's diagonal, with a step size found on the way (arXiv 2109.05198).

    D <- beta D + (1 - beta) z * (H z),  D^ = max(|D|, alpha)            z Rademacher; the first D is z * (H z)
    eta_k = min{ sqrt(1 + eta_(k-1) / eta_(k-2)) eta_(k-1),
                 ||theta_k - theta_(k-1)||_D^ / (2 ||g_k - g_(k-1)||_(1/D^)) }
    theta <- theta - lr eta_k D^^(-1) g

Both gradients are of the step's batch; the first eta is `first`, and the first bound does not hold for the second one.
With `adaptive=False` eta is 1. With momentum m <- momentum m + (1 - momentum) g stands for g in the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Closure, Parameters, Solver, check
from solvers.first_order.base import Update, buffers, square_norm
from solvers.preconditioned.base import widened
from solvers.preconditioned.hutchinson import HessianDiagonal


class OASIS(HessianDiagonal):
    """OASIS; see the module for the update.

    Only `step(closure)`. The adaptive rule evaluates the closure at the last point too, on the same batch and with the
    same random numbers (see `solvers.repeatable`), unless `full_batch` says that the last step's gradient is that one.

    Args:
        params: parameters, or groups with settings of their own.
        lr: scales the step, >= 0; what schedulers move.
        adaptive: whether eta follows the rule.
        first: the first eta, > 0.
        beta: of the running mean of D, in [0, 1).
        alpha: the smallest |D| that counts, > 0.
        momentum: in [0, 1).
        full_batch: whether all steps have one and the same loss.
        every: steps from one estimate to the next.
        probes: vectors z of an estimate.
        generator: for z; its state is part of `state_dict`. None: a fresh seed.

    Attributes:
        eta: of the last step; nan before the first.

    Example:
        >>> import torch
        >>> from solvers import OASIS
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = OASIS([x], full_batch=True)
        >>> losses = [float(solver.step(lambda: x[0] ** 2 + 50 * x[1] ** 2)) for _ in range(30)]
        >>> losses[0], losses[-1] < 1e-6, round(solver.eta, 2)  # 1 / 2 of Newton's step
        (209.0, True, 0.5)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        *,
        adaptive: bool = True,
        first: float = 1e-3,
        beta: float = 0.999,
        alpha: float = 0.01,
        momentum: float = 0.0,
        full_batch: bool = False,
        every: int = 1,
        probes: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check(first=(first, 0 < first < math.inf))
        settings = check(
            lr=(lr, lr >= 0),
            beta=(beta, 0 <= beta < 1),
            alpha=(alpha, alpha > 0),
            momentum=(momentum, 0 <= momentum < 1),
        )
        super().__init__(params, settings, every=every, probes=probes, generator=generator)
        self.adaptive, self.first, self.full_batch = adaptive, first, full_batch
        self._changes: dict[int, Tensor] = {}  # of the gradient since the last step, by their parameter's state

    @property
    def eta(self) -> float:
        """The step size of the last step; nan before the first."""
        return self.param_groups[0].get("etas", (math.nan,))[-1]

    @override
    def evaluate(self, closure: Closure) -> tuple[Any, dict[Tensor, Tensor]]:
        """As of the base class; the change of the gradient since the last point comes with it."""
        twice = self.adaptive and not self.full_batch
        batch = self.repeatable(closure) if twice else closure
        loss, given = super().evaluate(batch)
        self._changes = {}
        before = {p: self.state[p]["before"] for p in given if "before" in self.state.get(p, {})}
        if self.adaptive and before:
            if self.full_batch:
                old = {p: self.state[p]["gradient"] for p in before}
            else:
                with _at(before):
                    _, old = Solver.evaluate(self, batch)
            self._changes = {id(self.state[p]): widened(given[p]) - widened(old[p]) for p in before if p in old}
        return loss, given

    @override
    def _move_groups(self, updates: list[Update]) -> None:
        updates = self._with_curvature(updates)
        metrics = [
            [D.abs().clamp_min_(update.group["alpha"]) for D in buffers(update.states, update.parameters, "curvature")]
            for update in updates
        ]
        eta = self._next_eta(updates, metrics) if self.adaptive else 1.0
        for update, metric in zip(updates, metrics, strict=True):
            group, parameters, gradients, states = update
            direction = gradients
            if group["momentum"]:
                direction = buffers(states, parameters, "mean")
                torch._foreach_lerp_(direction, gradients, 1.0 - group["momentum"])
            if self.adaptive:
                for state, p, g in zip(states, parameters, gradients, strict=True):
                    state["before"] = p.clone()
                    if self.full_batch:
                        state["gradient"] = g.clone()
            torch._foreach_addcdiv_(parameters, direction, metric, -float(group["lr"]) * eta)

    def _next_eta(self, updates: list[Update], metrics: list[list[Tensor]]) -> float:
        """By the rule; where nothing has moved, or no gradient changed, as the last one."""
        moved, turned = [], []
        for update, metric in zip(updates, metrics, strict=True):
            for p, D, state in zip(update.parameters, metric, update.states, strict=True):
                if id(state) in self._changes:
                    moved.append((p - state["before"]).mul_(D.sqrt()))
                    turned.append(self._changes[id(state)] / D.sqrt())
        first = self.param_groups[0]
        etas = first.get("etas", ())
        eta = etas[-1] if etas else self.first
        way, turn = (square_norm(moved), square_norm(turned)) if moved else (0.0, 0.0)
        if etas and way > 0.0 and turn > 0.0:
            grown = math.sqrt(1.0 + etas[-1] / etas[-2]) * etas[-1] if len(etas) > 1 else math.inf
            eta = min(grown, 0.5 * math.sqrt(way / turn))
        first["etas"] = (*etas, eta)[-2:]
        return eta


@contextmanager
def _at(values: dict[Tensor, Tensor]) -> Iterator[None]:
    """The parameters have these values inside, and every bit of their own again afterwards."""
    own = [p.detach().clone() for p in values]
    try:
        for p, value in values.items():
            p.copy_(value)
        yield
    finally:
        for p, value in zip(values, own, strict=True):
            p.copy_(value)
