"""RS-RNM, the randomised subspace regularised Newton method (Fuji, Poirion and Takeda, arXiv 2209.04170).

With P of s rows drawn from a normal distribution, S = P H P^T and Lam = max(0, -smallest eigenvalue of S):

    d = -P^T (S + eta I)^(-1) P g,      eta = c1 Lam + c2 ||g||^gamma
    theta <- theta + t d,               t = 1, beta, beta^2, ... until f - f+ >= -alpha t g.d

||g|| is that of the whole gradient. The implementation that SSCN was compared with draws entries of standard deviation
1 / s and forms the whole Hessian; here S takes s products, from kept margins where the
closure has them (`linear_model`). An Armijo search that fails leaves the parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.second_order.acceptance import Doubling
from solvers.second_order.block_point import BlockModel, ProductModel, whole_point
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.space import eigenbasis
from solvers.second_order.subspace_point import SubspacePoint
from solvers.second_order.trial_point import Move, Point


class RSRNM(NewtonSolver):
    """Randomised subspace regularised Newton; see the module for the update.

    Args:
        params: one group, on one device.
        subspace: s, the rows of P, 1 <= s <= n.
        c1, c2, gamma: of the regularisation; c1 > 1, c2 > 0, gamma >= 0.
        alpha, beta: of the Armijo search, in (0, 1).
        scale: standard deviation of P's entries; None is 1 / s, as there. 1 / sqrt(s) keeps lengths in the mean, and
            took 73 steps for 191 to a gradient of 1e-9 on a logistic loss with n = 30, s = 15.
        lr: scales the step, before its trial; what schedulers move.
        generator: for P; its state is part of `state_dict`. None: a fresh seed.

    Example:
        >>> import torch
        >>> from solvers import RSRNM
        >>> x = torch.ones(4, dtype=torch.float64, requires_grad=True)
        >>> solver = RSRNM([x], subspace=2, generator=torch.Generator().manual_seed(0))
        >>> losses = [float(solver.step(lambda: (x.exp() - x).sum())) for _ in range(30)]
        >>> round(losses[0], 2), losses[-1] < 4.5, solver.last.size
        (6.87, True, 2)
    """

    def __init__(
        self,
        params: Parameters,
        subspace: int,
        *,
        c1: float = 2.0,
        c2: float = 1.0,
        gamma: float = 0.5,
        alpha: float = 0.3,
        beta: float = 0.5,
        scale: float | None = None,
        lr: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check(
            subspace=(subspace, subspace >= 1),
            c1=(c1, c1 > 1),
            c2=(c2, c2 > 0),
            gamma=(gamma, gamma >= 0),
            alpha=(alpha, 0 < alpha < 1),
            beta=(beta, 0 < beta < 1),
            scale=(scale, scale is None or scale > 0),
        )
        armijo = Doubling(growth=beta, remembers=False)  # with -m(h) = -alpha t g.d
        super().__init__(params, ("step", 1.0), armijo, dense=False, lr=lr, generator=generator)
        if subspace > self.most:
            raise ValueError(f"a subspace of {subspace} dimensions does not fit into {self.most} parameters")
        self.subspace, self.c1, self.c2, self.gamma, self.alpha, self.beta = subspace, c1, c2, gamma, alpha, beta
        self.scale = 1.0 / subspace if scale is None else scale

    @override
    def _blocks(self, model: BlockModel, leaves: list[Tensor]) -> Point | None:
        return self._within(whole_point(model, leaves)) if isinstance(model, ProductModel) else None

    @override
    def _within(self, whole: Point) -> Point:
        n = len(whole.g)
        P = torch.randn(n, min(self.subspace, n), generator=self.generator, dtype=torch.float64)
        return SubspacePoint(whole, self.scale * P)

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        assert isinstance(point, SubspacePoint)
        w, U = eigenbasis(point.dense())
        size, lowest = float(point.whole.g.norm()), float(w[0])
        eta = self.c1 * max(0.0, -lowest) + self.c2 * size**self.gamma
        d = -(U @ ((U.T @ point.g) / (w + eta))) if size > 0 else torch.zeros_like(point.g)
        slope, length = -float(point.g @ d), float(point.lift(d).norm())

        def propose(t: float) -> Move:
            promised = self.alpha * t * slope  # of a line: the search compares with no model of second order
            at = t * length
            return Move(t * d, promised, lowest, len(d), eta, length=at, slope=promised, indefinite=lowest < 0)

        return propose
