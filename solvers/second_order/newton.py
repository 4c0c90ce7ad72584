"""The loop of every Newton-type solver: a model, trial points, acceptance, and a report of the step.

A solver of this kind says in `_model` how a step follows from the gradient, the Hessian and one constant of its own
(M, L, gamma, ...); its `Acceptance` says when a trial point is taken and which constant follows. Where a step promises
less than 100 eps max(1, |f|) differences of losses are rounding: it is then taken iff the gradient does not grow (nor
f by more than that), and the constant is left alone (`last.stalled`). A rule that tries again at once makes up to 8
trial points there, each shorter, for a constant that is too small would never change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from landscape.randomness import fresh_generator
from solvers.base import Closure, Parameters, Solver, check
from solvers.second_order.acceptance import TRIES, Acceptance
from solvers.second_order.space import Space, krylov_space, whole_space
from solvers.second_order.trial_point import BlockModel, BlockPoint, GraphPoint, Move, Point

STALLED = 100.0  # roundings of f
DENSE_LIMIT = 10_000  # parameters up to which a dense Hessian is made: 800 MB, decomposed in minutes


@dataclass(frozen=True)
class NewtonStep:
    """What a step did.

    Attributes:
        accepted: the parameters have moved.
        loss, new_loss: f before, and at the last point that was tried (nan or inf where it is not finite).
        decrease: -m(h), what the model promised.
        ratio: (f - f+) / decrease; nan where decrease is 0.
        M: the solver's constant, whatever its name, for the next step; `used`: in this one's last model.
        size: dimension of the space in which the Hessian was known: n, or that of the subspace or Krylov space.
        gradient_norm: before, in the subspace.
        lowest: smallest eigenvalue of the Hessian in that space; nan where none was seen.
        length: of the step.
        products: with the Hessian; 0 where blocks were given.
        tries: trial points.
        stalled: the model's decrease was below the rounding of f.
        hard_case: as in `CubicStep`.
        shift: what was added to the (absolute) eigenvalues of the Hessian; nan for `SSCN`.
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
    shift: float


class NewtonSolver(Solver):
    """A solver that steps by a model of the loss and looks at the trial point; see the module.

    Args:
        params: one group, on one device; those that require grad are moved.
        constant: name and first value, > 0, of the solver's constant, which `param_groups[0]` keeps.
        acceptance: when a step is taken.
        dense: whether the model takes the whole Hessian as a matrix, unless there is `krylov`.
        krylov: dimension of the Krylov space that stands for the whole.
        generator: for what is random, on the CPU; its state is part of `state_dict`. None: a fresh seed.

    `step(closure)` returns the loss where it began, a float64 scalar; `last` is a `NewtonStep`. The closure is called
    once for the derivatives and once or twice a trial point; with mini-batches all must be of the same batch.
    """

    _memory: ClassVar[tuple[str, ...]] = ()  # what the next step has to know of this one: attributes without their "_"

    def __init__(
        self,
        params: Parameters,
        constant: tuple[str, float],
        acceptance: Acceptance,
        *,
        dense: bool = True,
        krylov: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self._constant, value = constant
        super().__init__(params, check(**{self._constant: (value, 0 < value < math.inf)}))
        name = type(self).__name__
        if len(self.param_groups) > 1:
            raise ValueError(f"{name} takes one group of parameters: a step is one model in all of them")
        self._leaves: list[Tensor] = [p for p in self.param_groups[0]["params"] if p.requires_grad]
        if not self._leaves:
            raise ValueError(f"{name} got no parameter that requires grad")
        devices = {p.device for p in self._leaves}
        if len(devices) > 1:
            raise ValueError(f"{name} takes parameters on one device, not on {', '.join(sorted(map(str, devices)))}")
        self.n = sum(p.numel() for p in self._leaves)
        check(krylov=(krylov, krylov is None or krylov >= 1))
        self.krylov, self._dense = krylov, dense and krylov is None
        if self._dense and self.n > DENSE_LIMIT:
            raise ValueError(
                f"{name} makes a dense Hessian of at most {DENSE_LIMIT} parameters, not of {self.n}: use krylov="
            )
        self._acceptance, self.generator = acceptance, generator or fresh_generator()
        self.last: NewtonStep | None = None
        self._failures = 0

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def _model(self, point: Point) -> Callable[[float], Move]:
        """The step as a function of the constant."""
        raise NotImplementedError

    def _point(self, closure: Closure | BlockModel) -> Point:
        """Where the step begins: the whole space, unless a subclass looks at less."""
        curvature = self._curvature()
        if self._dense and isinstance(closure, BlockModel):
            by_graph = callable(closure) and not curvature
            gradient = GraphPoint(closure, self._leaves, False).g if by_graph else None  # type: ignore[arg-type]
            return BlockPoint(closure, torch.arange(self.n), gradient)
        return GraphPoint(closure, self._leaves, curvature)  # type: ignore[arg-type]

    def _curvature(self) -> bool:
        """Whether this step needs second derivatives of the closure."""
        return True

    def _first(self, point: Point, constant: float) -> float:
        """The constant of the first trial point."""
        return constant

    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        """What is kept for the next step, under the names in `_memory`."""

    def _space(self, point: Point) -> Space:
        """The Hessian of the loss in the whole space, or in a Krylov space."""
        if self.krylov is None:
            return whole_space(point.g, point.dense())
        return krylov_space(point, point.operator(), self.krylov)

    # -- the step -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Closure | BlockModel) -> Tensor:  # type: ignore[override]
        """One step; see the class. Returns the loss at the point where it began, a float64 scalar.

        Raises:
            ValueError: the first loss is not finite, or 40 trial points in a row were not; parameters are as before.
            FloatingPointError: derivatives are not finite.
            RuntimeError, TypeError: see `Solver.evaluate`.
        """
        point = self._point(closure)
        if not math.isfinite(point.loss):
            raise ValueError(f"the loss is {point.loss} before the step: there is nothing to build a model on")
        try:
            move, self.last = self._try(point)
        except BaseException:  # Ctrl-C at a trial point, say
            point.reject()
            raise
        self._finish(point, move, self.last.accepted)
        point.accept() if self.last.accepted else point.reject()
        if self._failures >= TRIES:
            self._failures = 0
            raise ValueError(
                f"the loss was not finite at {TRIES} trial points in a row ({self._constant} is {self.last.M:.3g} now)"
            )
        return torch.tensor(point.loss, dtype=torch.float64)

    def _try(self, point: Point) -> tuple[Move, NewtonStep]:
        """Trial points until one is accepted or the rule gives up; the constant follows."""
        group, rule = self.param_groups[0], self._acceptance
        following = self._first(point, group[self._constant])
        propose = self._model(point)
        size, rounding = float(point.g.norm()), STALLED * point.eps * max(1.0, abs(point.loss))
        tries, stalls, kept = 0, 0, None
        while True:
            tries += 1
            used = following
            move = propose(used)
            new = point.trial(move.h)
            finite, stalled = math.isfinite(new), move.decrease < rounding
            if not finite:
                accepted, following = False, rule.growth * used
            elif stalled and rule.stalls:
                stalls += 1
                if kept is None:
                    kept = used if tries > 1 else group[self._constant]
                following = rule.growth * used
                accepted = new <= point.loss + rounding and float(point.gradient_after().norm()) <= size
            else:
                accepted, following = rule.judge(point, move, new, used)
            self._failures = 0 if finite else self._failures + 1
            if accepted or tries >= rule.tries or self._failures >= TRIES or stalls >= rule.stalls > 0:
                break
        if rule.remembers:
            group[self._constant] = following if kept is None else kept
        return move, NewtonStep(
            accepted=accepted,
            loss=point.loss,
            new_loss=new,
            decrease=move.decrease,
            ratio=(point.loss - new) / move.decrease if move.decrease > 0 else math.nan,
            M=group[self._constant],
            used=used,
            size=move.size,
            gradient_norm=size,
            lowest=move.lowest,
            length=float(move.h.double().norm()) if move.length is None else move.length,
            products=point.products,
            tries=tries,
            stalled=stalled,
            hard_case=move.hard_case,
            shift=move.shift,
        )

    # -- the state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Of the base class, with the random generator's state and what the solver keeps between steps."""
        own = {"solver": type(self).__name__, "generator": self.generator.get_state(), "failures": self._failures}
        return {**super().state_dict(), "newton": own | {name: getattr(self, f"_{name}") for name in self._memory}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit. Raises `ValueError` for the state of another solver."""
        own = state_dict.get("newton", {})
        if own.get("solver") != type(self).__name__:
            raise ValueError(f"this is not the state of {type(self).__name__}")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "newton"})
        self.generator.set_state(own["generator"].cpu())
        self._failures = own["failures"]
        for name in self._memory:
            setattr(self, f"_{name}", own[name])
