"""Saddle-free Newton (Dauphin et al., NeurIPS 2014): theta <- theta - (|H| + lam I)^(-1) g, |H| = U |diag(w)| U^T.

Saddle points repel it, for negative curvature is followed downhill at the pace of its absolute value. H is known

    dense       in the whole space
    by rank     by its `rank` eigenpairs of largest |w|; what of g lies outside them, where |curvature| is at most the
                smallest |w| that was found, is divided by that |w| + lam
    by Krylov   in the Krylov space of g (as in the paper), which contains g

The rules for lam are those of `solvers.second_order.acceptance`, with the model g.h + h.|H| h / 2 + lam ||h||^2 / 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from typing_extensions import override

from landscape.spectra import eigsh
from solvers.base import Parameters, check
from solvers.second_order.acceptance import RULES, Rule
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.trial_point import Move, Point


class SaddleFreeNewton(NewtonSolver):
    """Saddle-free Newton; see the module for the update.

    Args:
        params: one group, on one device.
        damping: the first lam, > 0.
        rule: "doubling", "ratio" or "fixed".
        rank: how many eigenpairs of largest absolute value are taken.
        krylov: dimension of the Krylov space. Without `rank` and `krylov` the Hessian is dense, up to n = 10,000.
        tol: of the eigenpairs, relative to the largest.
        lr: scales the step, before its trial; what schedulers move.
        generator: for their search; its state is part of `state_dict`.

    Example:
        >>> import torch
        >>> from solvers import SaddleFreeNewton
        >>> x = torch.tensor([1.0, 0.01], dtype=torch.float64, requires_grad=True)  # near a saddle point
        >>> solver = SaddleFreeNewton([x], damping=0.1)
        >>> losses = [float(solver.step(lambda: x[0] ** 2 - x[1] ** 2 + x[1] ** 4)) for _ in range(20)]
        >>> round(losses[0], 3), round(losses[-1], 3)
        (1.0, -0.25)
    """

    def __init__(
        self,
        params: Parameters,
        damping: float = 1.0,
        *,
        rule: Rule = "doubling",
        rank: int | None = None,
        krylov: int | None = None,
        tol: float = 1e-3,
        lr: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check(rule=(rule, rule in RULES), tol=(tol, tol > 0), rank=(rank, rank is None or rank >= 1))
        if rank is not None and krylov is not None:
            raise ValueError("pass rank or krylov, not both")
        constant = ("damping", damping)
        super().__init__(params, constant, RULES[rule](), dense=rank is None, krylov=krylov, lr=lr, generator=generator)
        if rank is not None and rank > self.most:
            raise ValueError(f"{rank} eigenpairs do not fit into {self.most} parameters")
        self.rule, self.rank, self.tol = rule, rank, tol

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        if self.rank is not None:
            return self._by_rank(point, self.rank)
        space = self._space(point)
        absolute = space.w.abs()

        def propose(damping: float) -> Move:
            s = -space.c / (absolute + damping)
            return Move(
                space.lift(s),
                -0.5 * float(space.c @ s),
                space.lowest,
                len(space.w),
                damping,
                indefinite=space.indefinite,
            )

        return propose

    def _by_rank(self, point: Point, rank: int) -> Callable[[float], Move]:
        A = point.operator()
        pairs = eigsh(A, min(rank, len(point.g)), which="LM", tol=self.tol, generator=self.generator)
        point.products += pairs.matvecs
        V, absolute = pairs.vectors, pairs.values.abs()
        c = A.inner(V, A.space.columns(point.g))[:, 0]
        inside = lambda s: A.combine(V, s.reshape(-1, 1))[..., 0].double().cpu()  # noqa: E731
        rest = point.g - inside(c)
        bound, lowest = float(absolute[-1]), float(pairs.values.min())

        def propose(damping: float) -> Move:
            s = c / (absolute + damping)
            h = -inside(s) - rest / (bound + damping)
            decrease = 0.5 * float(c @ s) + 0.5 * float(rest @ rest) / (bound + damping)
            return Move(h, decrease, lowest, len(c), damping, indefinite=lowest < -self.tol * float(absolute[0]))

        return propose
