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
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from landscape import Hessian
from solvers.base import Closure, Parameters, Solver, check, checked_loss, explained
from solvers.cubic import CubicStep, solve_cubic
from solvers.subspaces import Kind, Schedule, Seen, as_schedule, choose

_ACCEPT, _GOOD = 0.05, 0.9
_SMALLEST = 1e-10  # of M
_TRIES = 40
_STALLED = 100.0  # roundings of f
_FRESH = 0.8  # weight of the newest norm in the running means


@dataclass(frozen=True)
class Step:
    """What a step did.

    Attributes:
        accepted: the parameters have moved.
        loss, new_loss: f before, and at the last point that was tried (nan or inf where it is not finite).
        decrease: -m(h), what the model promised.
        ratio: (f - f+) / decrease; nan where decrease is 0.
        M: for the next step; `used`: in this one's last model.
        size: coordinates of the subspace.
        gradient_norm: ||g_S|| before.
        lowest: smallest eigenvalue of the block H_SS.
        length: ||h||.
        products: with the Hessian; 0 where blocks were given.
        tries: trial points.
        stalled: the model's decrease was below the rounding of f.
        hard_case: as in `CubicStep`.
    """

    accepted: bool
    loss: float
    new_loss: float
    decrease: float
    ratio: float
    M: float
    used: float
    size: int
    gradient_norm: float
    lowest: float
    length: float
    products: int
    tries: int
    stalled: bool
    hard_case: bool


@runtime_checkable
class BlockModel(Protocol):
    """A loss that knows its own blocks, such as `solvers.linear_model`: no graph is built."""

    def value(self) -> float:
        """f as it stands."""
        ...

    def blocks(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(g_S, H_SS)."""
        ...

    def trial(self, indices: Tensor, h: Tensor) -> float:
        """f after a step in S, which is not made."""
        ...

    def trial_gradient(self) -> Tensor:
        """g_S at the last trial point."""
        ...

    def move(self) -> None:
        """Make the step that was tried last."""
        ...


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
        self, params: Parameters, subspace: int | Schedule, *, kind: Kind = "coordinates", M: float = 1.0,
        rule: Literal["ratio", "doubling", "fixed"] = "ratio", hessian_block: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        check(
            M=(M, 0 < M < math.inf), rule=(rule, rule in ("ratio", "doubling", "fixed")),
            kind=(kind, kind in ("coordinates", "blocks", "layers", "gaussian")),
        )  # fmt: skip
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
        M = self.param_groups[0]["M"]
        tries = 0
        while True:
            tries += 1
            cubic = solve_cubic(view.g, view.H, M)
            new = view.trial(cubic.h)
            stalled = cubic.decrease < _STALLED * view.eps * max(1.0, abs(view.loss))
            ratio = (view.loss - new) / cubic.decrease if cubic.decrease > 0 else math.nan
            accepted = self._accepts(view, cubic, new, ratio, stalled)
            following = self._weight(M, ratio, new, accepted, stalled)
            self._failures = 0 if math.isfinite(new) else self._failures + 1
            if accepted or stalled or self.rule != "doubling" or tries >= _TRIES or self._failures >= _TRIES:
                break
            M = following
        view.accept() if accepted else view.reject()
        self.param_groups[0]["M"] = following
        self._note(view, cubic, accepted)
        self.last = Step(
            accepted, view.loss, new, cubic.decrease, ratio, following, M, len(view.g), float(view.g.norm()),
            cubic.lowest, float(cubic.h.norm()), view.products, tries, stalled, cubic.hard_case,
        )  # fmt: skip
        if self._failures >= _TRIES:
            self._failures = 0
            raise ValueError(f"the loss was not finite at {_TRIES} trial points in a row (M is {following:.3g} now)")
        return torch.tensor(view.loss, dtype=torch.float64)

    def _accepts(self, view: _View, cubic: CubicStep, new: float, ratio: float, stalled: bool) -> bool:
        if not math.isfinite(new):
            return False
        if self.rule == "fixed":
            return True
        if stalled:
            rounding = _STALLED * view.eps * max(1.0, abs(view.loss))
            return new <= view.loss + rounding and view.gradient_after() <= float(view.g.norm())
        if self.rule == "doubling":
            return view.loss - new >= cubic.decrease
        return ratio >= _ACCEPT and new <= view.loss

    def _weight(self, M: float, ratio: float, new: float, accepted: bool, stalled: bool) -> float:
        if not math.isfinite(new):
            return 2.0 * M if self.rule == "doubling" else 1.5 * M
        if stalled or self.rule == "fixed":
            return M
        if self.rule == "doubling":
            return max(0.5 * M, _SMALLEST) if accepted else 2.0 * M
        if ratio >= _GOOD:
            return max(0.5 * M, _SMALLEST)
        return M if ratio >= _ACCEPT else 1.5 * M

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
        self._closure, self._leaves = closure, solver._leaves
        with torch.enable_grad():
            loss = checked_loss(closure)
            self.loss, self.eps, self.products = float(loss.detach()), torch.finfo(loss.dtype).eps, 0
            A = Hessian.from_loss(loss.sum(), self._leaves)
        with explained():
            gradient = A.gradient()
        self._P = self._directions(solver, size, gradient)
        if isinstance(self._P, Tensor) and self._P.ndim == 2:
            self.g = (self._P.T @ gradient).double().cpu()
            self.H = A.inner(self._P, A @ self._P)
            self.products = self._P.shape[1]
        else:
            self.g = gradient[self._P].double().cpu()
            if solver._block is None:
                self.H, self.products = A.block(self._P).double().cpu(), len(self._P)
            else:
                self.H = solver._block(self._P).detach().double().cpu()
        A.release()
        self._old: list[Tensor] | None = None

    @staticmethod
    def _directions(solver: SSCN, size: int, like: Tensor) -> Tensor:
        """Indices `(tau,)`, or random directions `(n, tau)`."""
        if solver.kind == "gaussian":
            P = torch.randn(solver.n, size, generator=solver.generator, dtype=torch.float64) / math.sqrt(solver.n)
            return P.to(like)
        sizes = [p.numel() for p in solver._leaves]
        return choose(solver.n, size, solver.kind, sizes, solver.generator).to(like.device)

    def trial(self, h: Tensor) -> float:
        self.reject()
        self._old = [p.detach().clone() for p in self._leaves]
        step = torch.zeros(sum(p.numel() for p in self._leaves), dtype=torch.float64, device=self._leaves[0].device)
        h = h.to(step)
        if self._P.ndim == 2:
            step = self._P.double() @ h
        else:
            step[self._P] = h
        for p, piece in zip(self._leaves, step.split([p.numel() for p in self._leaves]), strict=True):
            p.add_(piece.reshape(p.shape).to(p.dtype))
        try:
            with torch.no_grad():
                return float(self._closure())
        except BaseException:
            self.reject()
            raise

    def gradient_after(self) -> float:
        with torch.enable_grad():
            pieces = torch.autograd.grad(self._closure(), self._leaves, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([g.reshape(-1) for g in pieces])
        return float((self._P.T @ gradient if self._P.ndim == 2 else gradient[self._P]).double().norm())

    def accept(self) -> None:
        self._old = None

    def reject(self) -> None:
        if self._old is not None:
            for p, old in zip(self._leaves, self._old, strict=True):
                p.copy_(old)
            self._old = None


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
