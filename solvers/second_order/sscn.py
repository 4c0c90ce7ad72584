"""SSCN, the stochastic subspace cubic Newton method (Zhao, Doikov and Lucchi, arXiv 2406.16666; convex: 2002.09526).

At each step a random subset S of tau coordinates is moved by the minimiser of

    g_S.h + h.H_SS h / 2 + (M / 6) ||h||^3,

the exact block of the Hessian with the exact cubic sub-problem. The rules for M:

    ratio      rho = (f - f+) / -m(h), one subset a step: moves if rho >= 0.05 and f falls; M / 2 if rho >= 0.9, 1.5 M
               if rho < 0.05 (the rule of the paper's experiments)
    doubling   on the same subset M doubles until f - f+ >= -m(h); it is halved after a step
    fixed      M stays, every finite step is taken: for M above the Lipschitz constant of the Hessian

Where -m(h) < 100 eps max(1, |f|) a difference of losses is rounding: the step is then taken iff the gradient in the
subspace does not grow (nor f by more than that), and M is left alone (`last.stalled`).

The published rule ("ratio") has one M for all subsets. Where few of them have negative curvature it falls to its floor
on the others, and those few are then given steps that are far too long and rejected: "doubling" gets on there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator
from solvers.base import Closure, Parameters, Solver, check
from solvers.second_order.acceptance import STALLED, TRIES, Rule, Step, by_decrease
from solvers.second_order.cubic import CubicStep, assemble, check_weight, eigenbasis
from solvers.second_order.subspaces import Kind, Schedule, Seen, as_schedule, choose
from solvers.second_order.trial_point import BlockModel, GraphPoint

_FRESH = 0.8  # weight of the newest norm in the running means


class SSCN(Solver):
    """Stochastic subspace cubic Newton; see the module for the update.

    Args:
        params: one group, on one device; those that require grad are moved.
        subspace: how many coordinates, or a schedule (`Constant`, `Exponential`, `Linear`, `Adaptive`).
        kind: "coordinates" uniform without replacement; "blocks" of neighbours; "layers", within one tensor;
            "gaussian": the span of that many random directions with entries of variance 1 / n.
        M: first weight of the cubic term, > 0.
        rule: "ratio", "doubling" or "fixed".
        hessian_block: `hessian_block(indices) -> (tau, tau)` at the parameters as they stand, instead of tau products.
        generator: for the subsets, on the CPU; its state is part of `state_dict`. None: a fresh seed.

    `step(closure)` returns the loss where it began; `last` is a `Step`. The closure is called once for the gradient and
    once a trial point; with mini-batches both must be of the same batch (the model is then that batch's, and M follows
    its noise). A closure that is a `BlockModel` is asked for blocks only. Memory beside the model: O(n + tau^2).
    """

    def __init__(
        self,
        params: Parameters,
        subspace: int | Schedule,
        *,
        kind: Kind = "coordinates",
        M: float = 1.0,
        rule: Rule = "ratio",
        hessian_block: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check(
            M=(M, 0 < M < math.inf),
            rule=(rule, rule in ("ratio", "doubling", "fixed")),
            kind=(kind, kind in ("coordinates", "blocks", "layers", "gaussian")),
        )
        if kind == "gaussian" and hessian_block is not None:
            raise ValueError("hessian_block gives blocks of coordinates: it does not fit kind='gaussian'")
        super().__init__(params, {"M": M})
        if len(self.param_groups) > 1:
            raise ValueError("SSCN takes one group of parameters: a step is one model in all of them")
        self._leaves: list[Tensor] = [p for p in self.param_groups[0]["params"] if p.requires_grad]
        if not self._leaves:
            raise ValueError("SSCN got no parameter that requires grad")
        devices = {p.device for p in self._leaves}
        if len(devices) > 1:
            raise ValueError(f"SSCN takes parameters on one device, not on {', '.join(sorted(map(str, devices)))}")
        self.n = sum(p.numel() for p in self._leaves)
        self.schedule, self.kind, self.rule = as_schedule(subspace), kind, rule
        if isinstance(subspace, int) and subspace > self.n:
            raise ValueError(f"a subspace of {subspace} coordinates does not fit into {self.n} parameters")
        self._block = hessian_block
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        self.generator = generator
        self.seen = Seen(0)
        self.last: Step | None = None
        self._failures = 0

    @torch.no_grad()
    def step(self, closure: Closure | BlockModel) -> Tensor:  # type: ignore[override]
        """One step; see the class. Returns the loss at the point where it began, a float64 scalar.

        Raises:
            ValueError: the first loss is not finite, or 40 trial points in a row were not; parameters are as before.
            RuntimeError, TypeError: see `Solver.evaluate`.
        """
        size = max(1, min(self.n, int(self.schedule.size(self.n, self.seen))))
        view = _Blocks(self, closure, size) if isinstance(closure, BlockModel) else _Graph(self, closure, size)
        if not math.isfinite(view.loss):
            raise ValueError(f"the loss is {view.loss} before the step: there is nothing to build a model on")
        try:
            cubic, self.last = self._try(view)
        except BaseException:  # Ctrl-C at a trial point, say
            view.reject()
            raise
        view.accept() if self.last.accepted else view.reject()
        self.param_groups[0]["M"] = self.last.M
        self._note(view, cubic, self.last.accepted)
        if self._failures >= TRIES:
            self._failures = 0
            raise ValueError(f"the loss was not finite at {TRIES} trial points in a row (M is {self.last.M:.3g} now)")
        return torch.tensor(view.loss, dtype=torch.float64)

    def _try(self, view: _View) -> tuple[CubicStep, Step]:
        """Trial points until one is taken or the rule gives up on this subspace."""
        following = self.param_groups[0]["M"]
        w, U, c = eigenbasis(view.g, view.H)
        tries = 0
        while True:
            tries, M = tries + 1, following
            check_weight(M)
            cubic = assemble(view.g, w, U, c, M)
            new = view.trial(cubic.h)
            stalled = cubic.decrease < STALLED * view.eps * max(1.0, abs(view.loss))
            accepted, following = self._judge(view, cubic, new, M, stalled)
            self._failures = 0 if math.isfinite(new) else self._failures + 1
            if accepted or stalled or self.rule != "doubling" or tries >= TRIES or self._failures >= TRIES:
                break
        ratio = (view.loss - new) / cubic.decrease if cubic.decrease > 0 else math.nan
        return cubic, Step(
            accepted,
            view.loss,
            new,
            cubic.decrease,
            ratio,
            following,
            M,
            len(view.g),
            float(view.g.norm()),
            cubic.lowest,
            float(cubic.h.norm()),
            view.products,
            tries,
            stalled,
            cubic.hard_case,
        )

    def _judge(self, view: _View, cubic: CubicStep, new: float, M: float, stalled: bool) -> tuple[bool, float]:
        """(whether the step is taken, the next M)."""
        if not math.isfinite(new):
            return False, 2.0 * M if self.rule == "doubling" else 1.5 * M
        if stalled and self.rule != "fixed":
            rounding = STALLED * view.eps * max(1.0, abs(view.loss))
            return new <= view.loss + rounding and view.gradient_after() <= float(view.g.norm()), M
        return by_decrease(self.rule, view.loss, new, cubic.decrease, M)

    def _note(self, view: _View, cubic: CubicStep, accepted: bool) -> None:
        """Running means for the schedule; the gradient of the whole is guessed from the first subset alone."""
        old = self.seen
        sampled, curvature = float(view.g.norm()), cubic.largest
        if math.isnan(old.gradient):
            gradient = math.sqrt(self.n / len(view.g)) * sampled
        else:
            gradient = _FRESH * sampled + (1 - _FRESH) * old.gradient
            curvature = _FRESH * curvature + (1 - _FRESH) * old.curvature
        length = float(cubic.h.norm()) if accepted else old.length
        self.seen = Seen(old.step + 1, length, gradient, curvature, len(view.g))

    # -- the state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Of the base class, with the random generator's state and what the schedule has seen."""
        state = super().state_dict()
        own = {"generator": self.generator.get_state(), "seen": vars(self.seen).copy(), "failures": self._failures}
        return {**state, "sscn": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit. Raises `ValueError` for the state of another solver."""
        if "sscn" not in state_dict:
            raise ValueError("this is not the state of SSCN")
        own = state_dict["sscn"]
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "sscn"})
        self.generator.set_state(own["generator"].cpu())
        self.seen, self._failures = replace(Seen(0), **own["seen"]), own["failures"]


class _View(Protocol):
    """A loss on a subspace: its gradient and Hessian there, and what becomes of it along a step."""

    loss: float
    eps: float
    g: Tensor
    H: Tensor
    products: int

    def trial(self, h: Tensor) -> float: ...
    def gradient_after(self) -> float: ...
    def accept(self) -> None: ...
    def reject(self) -> None: ...


class _Graph:
    """By the closure's graph: tau products with its Hessian."""

    def __init__(self, solver: SSCN, closure: Closure, size: int) -> None:
        self._point = GraphPoint(closure, solver._leaves, curvature=True)
        self.loss, self.eps, self.products = self._point.loss, self._point.eps, 0
        A = self._point.operator()
        self._P = self._directions(solver, size, A)
        self.g = self._seen(self._point.g)
        if self._P.ndim == 2:
            self.H, self.products = A.inner(self._P, A @ self._P), self._P.shape[1]
        elif solver._block is None:
            self.H, self.products = A.block(self._P).double().cpu(), len(self._P)
        else:
            self.H = solver._block(self._P).detach().double().cpu()
        A.release()

    @staticmethod
    def _directions(solver: SSCN, size: int, A: LinearOperator) -> Tensor:
        """Indices `(tau,)`, or random directions `(n, tau)`."""
        if solver.kind == "gaussian":
            P = torch.randn(solver.n, size, generator=solver.generator, dtype=torch.float64) / math.sqrt(solver.n)
            return P.to(device=A.device, dtype=A.dtype)
        sizes = [p.numel() for p in solver._leaves]
        return choose(solver.n, size, solver.kind, sizes, solver.generator).to(A.device)

    def _seen(self, gradient: Tensor) -> Tensor:
        """The part of a gradient `(n,)` that lies in the subspace, float64 on the host."""
        if self._P.ndim == 2:
            return (self._P.T @ gradient.to(self._P)).double().cpu()
        return gradient[self._P.to(gradient.device)]

    def trial(self, h: Tensor) -> float:
        if self._P.ndim == 2:
            return self._point.trial(self._P.double() @ h.to(self._P.device))
        step = torch.zeros_like(self._point.g)
        step[self._P.to(step.device)] = h
        return self._point.trial(step)

    def gradient_after(self) -> float:
        return float(self._seen(self._point.gradient_after()).norm())

    def accept(self) -> None:
        self._point.accept()

    def reject(self) -> None:
        self._point.reject()


class _Blocks:
    """By a model that knows its blocks."""

    def __init__(self, solver: SSCN, model: BlockModel, size: int) -> None:
        if solver.kind == "gaussian":
            raise ValueError("a model that gives blocks of coordinates does not fit kind='gaussian'")
        self._model, self.products = model, 0
        self.loss, self.eps = model.value(), torch.finfo(torch.float64).eps
        sizes = [p.numel() for p in solver._leaves]
        self._S = choose(solver.n, size, solver.kind, sizes, solver.generator)
        g, H = model.blocks(self._S)
        self.g, self.H = g.double().cpu(), H.double().cpu()

    def trial(self, h: Tensor) -> float:
        return self._model.trial(self._S, h)

    def gradient_after(self) -> float:
        return float(self._model.trial_gradient().norm())

    def accept(self) -> None:
        self._model.move()

    def reject(self) -> None:
        pass
