"""What the Newton-type solvers share: the loop of trial points, what it reports, and rules of acceptance.

A solver of this kind says in `_model` how a step follows from the gradient, the Hessian and one constant of its own
(M, L, gamma, ...), and in `_judge` when a trial point is taken and what becomes of the constant. As in `SSCN`,
where a step promises less than 100 eps max(1, |f|) differences of losses are rounding: it is then taken iff the
gradient does not grow (nor f by more than that), and the constant is left alone (`last.stalled`). A solver that tries
again at once makes up to 8 trial points there, each shorter, for a constant that is too small would never change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.base import Closure, Parameters, Solver
from solvers.second_order.acceptance import STALLED, TRIES, Step
from solvers.second_order.space import Space, decomposed, eigen, krylov_space
from solvers.second_order.trial_point import BlockModel, BlockPoint, GraphPoint, Point

STALLS = 8  # trial points of a step in which differences of losses are rounding
DENSE_LIMIT = 10_000  # parameters up to which a dense Hessian is made: 800 MB, decomposed in minutes


@dataclass(frozen=True)
class NewtonStep(Step):
    """What a step did: as `Step` of SSCN, with M for the solver's own constant, whatever its name.

    Attributes:
        size: dimension of the space in which the Hessian was known: n, or that of the Krylov space.
        lowest: smallest eigenvalue seen there; nan where none was.
        shift: what was added to the (absolute) eigenvalues of the Hessian.
    """

    shift: float


@dataclass(frozen=True)
class Move:
    """A step that is proposed.

    Attributes:
        h: `(n,)`.
        decrease: of the model.
        lowest, shift, size, hard_case: see `NewtonStep`.
        part: of a gradient that the step has seen; None for all of it.
    """

    h: Tensor
    decrease: float
    lowest: float
    shift: float
    size: int
    hard_case: bool = False
    part: Callable[[Tensor], Tensor] | None = None


class NewtonSolver(Solver):
    """A solver that steps by a model of the loss and looks at the trial point; see the module.

    Args:
        params: one group, on one device; those that require grad are moved.
        constant: name and first value of the solver's constant, which `param_groups[0]` keeps.
        krylov: dimension of the Krylov space that stands for the whole; None for a dense Hessian.
        generator: for what is random, on the CPU; its state is part of `state_dict`. None: a fresh seed.

    `step(closure)` returns the loss where it began, a float64 scalar; `last` is a `NewtonStep`. The closure is called
    once for the derivatives and once or twice a trial point; with mini-batches all must be of the same batch.
    """

    _retries = False  # whether a rejected step is tried again at once, with another constant
    _compares = True  # whether losses or gradients decide about a step
    _remembers = True  # whether the next step starts from the constant at which this one ended
    _dense = True  # whether the dense Hessian is used: then models that know their blocks are asked for it

    def __init__(
        self,
        params: Parameters,
        constant: tuple[str, float],
        *,
        krylov: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self._constant, value = constant
        super().__init__(params, {self._constant: value})
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
        if krylov is not None and krylov < 1:
            raise ValueError(f"krylov={krylov!r} is not possible: a space has at least one dimension")
        self.krylov = krylov
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        self.generator = generator
        self.last: NewtonStep | None = None
        self._failures = 0

    def _check_dense(self) -> None:
        """Raise `ValueError` for more parameters than a dense Hessian is made of."""
        if self.n > DENSE_LIMIT:
            raise ValueError(
                f"{type(self).__name__} makes a dense Hessian of at most {DENSE_LIMIT} parameters, not of {self.n}: "
                "use krylov="
            )

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def _model(self, point: Point) -> Callable[[float], Move]:
        """The step as a function of the constant."""
        raise NotImplementedError

    def _judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        """(whether the step is taken, the next constant) where f is finite at the trial point."""
        raise NotImplementedError

    def _safer(self, used: float) -> float:
        """The next constant after a trial point where f was not finite."""
        return 2.0 * used

    def _first(self, point: Point, constant: float) -> float:
        """The constant of the first trial point."""
        return constant

    def _curvature(self) -> bool:
        """Whether this step needs second derivatives of the closure."""
        return True

    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        """What is kept for the next step."""

    def _own(self) -> dict[str, Any]:
        """What a subclass adds to the state."""
        return {}

    def _restore(self, own: dict[str, Any]) -> None:
        """Take that from a state."""

    # -- the step -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Closure | BlockModel) -> Tensor:  # type: ignore[override]
        """One step; see the class. Returns the loss at the point where it began, a float64 scalar.

        Raises:
            ValueError: the first loss is not finite, or 40 trial points in a row were not; parameters are as before.
            FloatingPointError: second derivatives are not finite.
            RuntimeError, TypeError: see `Solver.evaluate`.
        """
        point = self._point(closure)
        if not math.isfinite(point.loss):
            raise ValueError(f"the loss is {point.loss} before the step: there is nothing to build a model on")
        try:
            move, result = self._trials(point)
        except BaseException:  # Ctrl-C at a trial point, say
            point.reject()
            raise
        self._finish(point, move, result.accepted)
        point.accept() if result.accepted else point.reject()
        self.last = result
        if self._failures >= TRIES:
            self._failures = 0
            raise ValueError(
                f"the loss was not finite at {TRIES} trial points in a row ({self._constant} is {result.M:.3g} now)"
            )
        return torch.tensor(point.loss, dtype=torch.float64)

    def _trials(self, point: Point) -> tuple[Move, NewtonStep]:
        """Trial points until one is accepted; the constant follows."""
        group = self.param_groups[0]
        following = self._first(point, group[self._constant])
        propose = self._model(point)
        rounding = STALLED * point.eps * max(1.0, abs(point.loss))
        tries, stalls, kept = 0, 0, None
        while True:
            tries += 1
            used = following
            move = propose(used)
            new = point.trial(move.h)
            finite, stalled = math.isfinite(new), self._compares and move.decrease < rounding
            if not finite:
                accepted, following = False, self._safer(used)
            elif stalled:
                stalls += 1
                if kept is None:
                    kept = used if tries > 1 else group[self._constant]
                following = self._safer(used)
                accepted = new <= point.loss + rounding and _seen(move, point.gradient_after()) <= _seen(move, point.g)
            else:
                accepted, following = self._judge(point, move, new, used)
            self._failures = 0 if finite else self._failures + 1
            if accepted or not self._retries or max(tries, self._failures) >= TRIES or stalls >= STALLS:
                break
        if self._remembers:
            group[self._constant] = following if kept is None else kept
        ratio = (point.loss - new) / move.decrease if move.decrease > 0 else math.nan
        return move, NewtonStep(
            accepted,
            point.loss,
            new,
            move.decrease,
            ratio,
            group[self._constant],
            used,
            move.size,
            _seen(move, point.g),
            move.lowest,
            float(move.h.double().norm()),
            point.products,
            tries,
            stalled,
            move.hard_case,
            move.shift,
        )

    def _point(self, closure: Closure | BlockModel) -> Point:
        if self._dense and self.krylov is None and isinstance(closure, BlockModel):
            return BlockPoint(closure, self._leaves, self._curvature())
        return GraphPoint(closure, self._leaves, self._curvature())  # type: ignore[arg-type]

    def _space(self, point: Point) -> Space:
        """The Hessian of the loss in the whole space, or in a Krylov space."""
        if self.krylov is None:
            return decomposed(point.g, *eigen(point))
        return krylov_space(point, point.operator(), self.krylov)

    # -- the state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Of the base class, with the random generator's state and what the solver keeps between steps."""
        own = {
            "solver": type(self).__name__,
            "generator": self.generator.get_state(),
            "failures": self._failures,
            **self._own(),
        }
        return {**super().state_dict(), "newton": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit. Raises `ValueError` for the state of another solver."""
        own = state_dict.get("newton", {})
        if own.get("solver") != type(self).__name__:
            raise ValueError(f"this is not the state of {type(self).__name__}")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "newton"})
        self.generator.set_state(own["generator"].cpu())
        self._failures = own["failures"]
        self._restore(own)


def _seen(move: Move, gradient: Tensor) -> float:
    return float((gradient if move.part is None else move.part(gradient)).norm())


def regularised(space: Space, lam: float) -> tuple[Tensor, Move]:
    """The minimiser of g.h + h.H h / 2 + (lam + max(0, -w_1)) ||h||^2 / 2: its coordinates and the move."""
    base = max(0.0, -space.lowest) if len(space.w) else 0.0
    s = space.shifted(base, lam)
    return s, Move(space.lift(s), max(0.0, -0.5 * float(space.c @ s)), space.lowest, base + lam, len(space.w))
