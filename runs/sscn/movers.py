"""The solvers of `runs.sscn` by name: each makes a step of a problem and tells its cost in coordinates.

A dense step in tau coordinates is counted as tau^2 + tau, also where it is tried with several M; coordinate descent as
tau, gradient methods as n, a Krylov step as n for each product: as the code of arXiv 2406.16666 counts the first two.
Blocks, gradients and products come from kept margins for all that can take them: SSCN, coordinate descent, RS-RNM.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from runs.sscn.problems import Case
from solvers import RSRNM, SSCN, Adaptive, CoordinateDescent, CubicNewton, Exponential, Linear
from solvers.second_order.acceptance import Ratio

LR = 0.5  # of gradient descent on the network, where no smoothness is known
GROWTH, SLOPE = (0.1, 0.02), 0.5  # of the exponential and the linear schedule


class StepReport(NamedTuple):
    """What is known of a step.

    The loss before it, its size tau, M of the next, and its cost in coordinates; `estimate` is the running mean of the
    norm in the subset by which the authors' code stops, nan where there is none.
    """

    loss: float
    tau: int
    M: float
    accepted: bool
    stalled: bool
    cost: float
    estimate: float = math.nan


def mover(problem: Case, solver: str, size: int, seed: int, c: float = 0.0) -> Callable[[], StepReport]:
    """The solver of that name on the problem: each call makes a step. Its subsets follow from the seed.

    "doubling", "ratio" and "script" are SSCN with their rule for M; "frozen" is "doubling" with one subset for all
    steps; "cd" starts from L = 1 at every step, as published, "cd-kept" from half of where the last one ended. `c` is
    of the adaptive sizes: "adaptive" as in the authors' script, "adaptive-step" with the length of the last step taken.
    """
    p, n = problem.parameters, problem.n
    generator = torch.Generator().manual_seed(seed)
    if solver == "gd":
        lr = LR if math.isnan(problem.smoothness) else 1 / problem.smoothness
        return _of_torch(torch.optim.SGD(p, lr=lr), problem)
    if solver == "lbfgs":
        exact = partial(torch.optim.LBFGS, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe")
        return _of_torch(exact(p, max_iter=1, max_eval=50, history_size=20), problem)
    tau, common = min(size, n), dict[str, Any](generator=generator)
    doubling: Callable[..., SSCN] = partial(SSCN, p, rule="doubling", **common)
    ways: dict[str, Callable[[], Any]] = {
        "doubling": lambda: doubling(tau),
        "frozen": lambda: doubling(tau),
        "ratio": lambda: SSCN(p, tau, rule="ratio", **common),
        "script": lambda: SSCN(p, tau, rule=Ratio(share=0.5), M=2.0, **common),
        "exponential": lambda: doubling(Exponential(tau, *GROWTH)),
        "linear": lambda: doubling(Linear(tau, SLOPE)),
        "adaptive": lambda: doubling(Adaptive(None, c, length="trial")),
        "adaptive-step": lambda: doubling(Adaptive(tau, c)),
        "cubic": lambda: CubicNewton(p, tol=1e-8, **common),
        "krylov": lambda: CubicNewton(p, krylov=True, tol=1e-8, **common),
        "cd": lambda: CoordinateDescent(p, tau, **common),
        "cd-kept": lambda: CoordinateDescent(p, tau, keep=True, **common),
        "rsrnm": lambda: RSRNM(p, tau, **common),
        "rsrnm-unit": lambda: RSRNM(p, tau, scale=tau**-0.5, **common),
    }
    if solver not in ways:
        raise ValueError(f"unknown solver {solver!r}")
    made = ways[solver]()

    def step() -> StepReport:
        if solver == "frozen":
            generator.manual_seed(seed)
        made.step(problem.closure)
        it = made.last
        cost = {"krylov": n * it.products, "cd": it.size, "cd-kept": it.size}.get(solver, it.size**2 + it.size)
        seen = made.seen.gradient if isinstance(made, SSCN) else math.nan
        return StepReport(it.loss, it.size, it.M, it.accepted, it.stalled, float(cost), seen)

    return step


def _of_torch(optimizer: torch.optim.Optimizer, problem: Case) -> Callable[[], StepReport]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.closure()
        loss.backward()
        return loss

    def step() -> StepReport:
        loss = cast(Tensor, optimizer.step(cast(Any, closure)))
        return StepReport(float(loss.detach()), problem.n, math.nan, True, False, float(problem.n))

    return step
