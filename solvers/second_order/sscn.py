"""SSCN, the stochastic subspace cubic Newton method (Zhao, Doikov and Lucchi, arXiv 2406.16666; convex: 2002.09526).

At each step a random subset S of tau coordinates is moved by the minimiser of

    g_S.h + h.H_SS h / 2 + (M / 6) ||h||^3,

the exact block of the Hessian with the exact cubic sub-problem: `CubicNewton` seen in a subspace, with a new one at
each step. The rules for M are those of `solvers.second_order.acceptance`. "ratio" is that of the paper's experiments.
With "doubling" M doubles on the same subset; where differences of losses are rounding there is one trial point.

The published rule ("ratio") has one M for all subsets. Where few of them have negative curvature it falls to its floor
on the others, and those few are then given steps that are far too long and rejected: "doubling" gets on there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import override

from landscape.spectra import eigsh
from solvers.base import Parameters, check
from solvers.second_order.acceptance import RULES, Acceptance, Doubling, Rule
from solvers.second_order.block_point import BlockModel, BlockPoint, whole_point
from solvers.second_order.cubic import assemble
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.space import eigenbasis
from solvers.second_order.subspace_point import SubspacePoint
from solvers.second_order.subspaces import Kind, Schedule, Seen, as_schedule, choose, subspace_size
from solvers.second_order.trial_point import Move, Point

_FRESH = 0.8  # weight of the newest norm in the running means


class SSCN(NewtonSolver):
    """Stochastic subspace cubic Newton; see the module for the update.

    Args:
        params: one group, on one device; those that require grad are moved.
        subspace: how many coordinates, or a schedule (`Constant`, `Exponential`, `Linear`, `Adaptive`).
        kind: "coordinates" uniform without replacement; "blocks" of neighbours; "layers", within one tensor;
            "gaussian": the span of that many random directions with entries of variance 1 / n.
        M: first weight of the cubic term, > 0.
        rule: "ratio", "doubling" or "fixed", or an `Acceptance`: `Ratio(share=0.5)` is the rule of the script.
        hessian_block: `hessian_block(indices) -> (tau, tau)` at the parameters as they stand, instead of tau products.
        lr: scales the step, before its trial; what schedulers move.
        generator: for the subsets, on the CPU; its state is part of `state_dict`. None: a fresh seed.

    `step(closure)` returns the loss where it began; `last` is a `NewtonStep`. The closure is called once for the
    gradient and once a trial point; with mini-batches both must be of the same batch (the model is then that batch's,
    and M follows its noise). A closure that is a `BlockModel` is asked for blocks only. Memory beside the model:
    O(n + tau^2).

    Example:
        >>> import torch
        >>> from solvers import SSCN
        >>> x = torch.zeros(10, dtype=torch.float64, requires_grad=True)
        >>> solver = SSCN([x], subspace=5, generator=torch.Generator().manual_seed(0))
        >>> losses = [float(solver.step(lambda: (x - 1).square().sum())) for _ in range(20)]
        >>> losses[0], losses[-1] < 0.1, solver.last.size
        (10.0, True, 5)
    """

    _memory: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(
        self,
        params: Parameters,
        subspace: int | Schedule,
        *,
        kind: Kind = "coordinates",
        M: float = 1.0,
        rule: Rule | Acceptance = "ratio",
        hessian_block: Callable[[Tensor], Tensor] | None = None,
        lr: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check(rule=(rule, isinstance(rule, Acceptance) or rule in RULES), kind=(kind, kind in get_args(Kind)))
        if kind == "gaussian" and hessian_block is not None:
            raise ValueError("hessian_block gives blocks of coordinates: it does not fit kind='gaussian'")
        # the next subset is as good a chance as the next M where losses say nothing
        if isinstance(rule, Acceptance):
            acceptance = rule
        else:
            acceptance = Doubling(stalls=1) if rule == "doubling" else RULES[rule]()
        super().__init__(params, ("M", M), acceptance, dense=False, lr=lr, generator=generator)
        self.schedule, self.kind, self.rule = as_schedule(subspace, self.most), kind, rule
        self._block = hessian_block
        self._largest = math.nan
        self._seen: dict[str, Any] = vars(Seen(0))

    @override
    def _whole(self) -> bool:
        return self._block is not None

    @override
    def _blocks(self, model: BlockModel, leaves: list[Tensor]) -> Point:
        if self.kind == "gaussian":
            raise ValueError("a model that gives blocks of coordinates does not fit kind='gaussian'")
        return BlockPoint(model, leaves, self._directions(leaves, lambda: whole_point(model, leaves)))

    @override
    def _within(self, whole: Point) -> Point:
        return SubspacePoint(whole, self._directions(whole.leaves, lambda: whole), self._block)

    @property
    def seen(self) -> Seen:
        """Running means of norms in the subspaces, and what else the next size may depend on."""
        return Seen(**self._seen)

    def _directions(self, leaves: list[Tensor], whole: Callable[[], Point]) -> Tensor:
        """Indices `(tau,)`, or random directions `(n, tau)`."""
        sizes = [p.numel() for p in leaves]
        n, seen = sum(sizes), self.seen
        if seen.step == 0 and getattr(self.schedule, "whole", False):
            seen = _norms(whole(), seen)
        size = subspace_size(self.schedule, n, seen)
        if self.kind == "gaussian":
            return torch.randn(n, size, generator=self.generator, dtype=torch.float64) / math.sqrt(n)
        return choose(n, size, self.kind, sizes, self.generator)

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        w, U = eigenbasis(point.dense())
        c, self._largest = U.T @ point.g, float(w.abs().max())

        def propose(M: float) -> Move:
            step = assemble(point.g, w, U, c, M)
            cubic = M / 6.0 * float(step.h.norm()) ** 3
            return Move(
                step.h,
                step.decrease,
                step.lowest,
                len(c),
                hard_case=step.hard_case,
                cubic=cubic,
                indefinite=step.indefinite,
            )

        return propose

    @override
    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        """Running means for the schedule; the gradient of the whole is guessed from the first subset alone."""
        old = self.seen
        gradient, curvature = float(point.g.norm()), self._largest
        if math.isnan(old.gradient):
            gradient *= math.sqrt(sum(p.numel() for p in point.leaves) / move.size)
        else:
            gradient = _FRESH * gradient + (1 - _FRESH) * old.gradient
            curvature = _FRESH * curvature + (1 - _FRESH) * old.curvature
        tried = float(move.h.norm())
        self._seen = vars(Seen(old.step + 1, tried if accepted else old.length, tried, gradient, curvature, move.size))

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        if "sscn" in state:  # as version 0.1.0 wrote it
            state["newton"] = {"solver": "SSCN", **state.pop("sscn")}
        super().load_state_dict(state)


def _norms(point: Point, seen: Seen) -> Seen:
    """With the norms of the gradient and the Hessian at a point of the whole space."""
    A = point.operator()
    top = eigsh(A, k=1, which="LM", tol=1e-8, generator=torch.Generator().manual_seed(0))
    return replace(seen, gradient=float(point.g.norm()), curvature=float(top.values.abs().max()))
