"""The loop of every Newton-type solver: a model, trial points, acceptance, and a report of the step.

A solver of this kind says in `_model` how a step follows from the gradient, the Hessian and one constant of its own
(M, L, gamma, ...); its `Acceptance` says when a trial point is taken and which constant follows. Where a step promises
less than 100 eps max(1, |f|) differences of losses are rounding: it is then taken iff the gradient does not grow (nor
f by more than that), and the constant is left alone (`last.stalled`). A rule that tries again at once makes up to 8
trial points there, each shorter, for a constant that is too small would never change.

The step is `lr` times the solver's own; what the model promises, f+ and the acceptance are of that scaled step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from landscape.randomness import fresh_generator
from solvers.base import MANUAL, Closure, Parameters, Solver, check, check_loss
from solvers.second_order.acceptance import TRIES, Acceptance, rounding
from solvers.second_order.block_point import BlockModel, BlockPoint
from solvers.second_order.newton_step import NewtonStep
from solvers.second_order.space import Space, krylov_space, whole_space
from solvers.second_order.trial_point import GraphPoint, Move, Point

DENSE_LIMIT = 10_000  # parameters up to which a dense Hessian is made: 800 MB, decomposed in minutes


class NewtonSolver(Solver):
    """A solver that steps by a model of the loss and looks at the trial point; see the module.

    Args:
        params: parameters, or groups of them, on one device: those that require grad when a step is made are moved by
            it. A step is one model in all groups, which have one `lr` and one constant.
        constant: name and first value, > 0, of the solver's constant, which `param_groups` keep.
        acceptance: when a step is taken.
        dense: whether the model takes the whole Hessian as a matrix, unless there is `krylov`.
        krylov: dimension of the Krylov space that stands for the whole.
        lr: scales the step, before its trial; what schedulers move.
        generator: for what is random, on the CPU; its state is part of `state_dict`. None: a fresh seed.

    `step(closure)` returns the loss where it began, a float64 scalar; `last` is a `NewtonStep`, None where nothing
    could move. The closure is called once for the derivatives and once or twice a trial point; with mini-batches all
    must be of the same batch. All calls of a step meet the same random numbers and buffers: see `solvers.repeatable`.
    """

    _memory: ClassVar[tuple[str, ...]] = ()  # what the next step has to know of this one: attributes without their "_"
    takes_complex = False

    def __init__(
        self,
        params: Parameters,
        constant: tuple[str, float],
        acceptance: Acceptance,
        *,
        dense: bool = True,
        krylov: int | None = None,
        lr: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self._constant, value = constant
        check(krylov=(krylov, krylov is None or krylov >= 1))
        self.krylov, self._dense = krylov, dense and krylov is None
        constants = {self._constant: (value, 0 < value < math.inf), "lr": (lr, 0 <= lr < math.inf)}
        super().__init__(params, check(**constants))
        self._movable()
        self._acceptance, self.generator = acceptance, generator or fresh_generator()
        self.last: NewtonStep | None = None
        self._failures = 0
        self._moved: list[int] | None = None  # which of the parameters were in the last step

    @property
    def n(self) -> int:
        """How many numbers may move as the parameters stand."""
        return sum(p.numel() for p in self.leaves())

    @property
    def most(self) -> int:
        """How many there are, frozen ones included."""
        return sum(p.numel() for p in self._parameters())

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        name, first = self._constant, self.param_groups[0]
        if group[name] == self.defaults[name]:
            group[name] = first[name]  # as it is by now
        for key in (name, "lr"):
            if group[key] != first[key]:
                raise ValueError(
                    f"a step of {type(self).__name__} is one model in all groups: they have one {key}, not "
                    f"{float(first[key]):g} and {float(group[key]):g}"
                )
        check(**{name: (group[name], 0 < group[name] < math.inf)}, lr=(group["lr"], 0 <= group["lr"] < math.inf))

    def _movable(self) -> list[Tensor]:
        """`leaves()`. Raises `ValueError` where a step in them is not possible."""
        leaves, name = self.leaves(), type(self).__name__
        devices = {p.device for p in leaves}
        if len(devices) > 1:
            raise ValueError(f"{name} takes parameters on one device, not on {', '.join(sorted(map(str, devices)))}")
        n = sum(p.numel() for p in leaves)
        if self._dense and n > DENSE_LIMIT:
            raise ValueError(
                f"{name} makes a dense Hessian of at most {DENSE_LIMIT} parameters, not of {n}: use krylov="
            )
        return leaves

    def _lr(self) -> float:
        """What scales this step."""
        rates = {float(group["lr"]) for group in self.param_groups}
        if len(rates) > 1:
            name = type(self).__name__
            raise ValueError(f"a step of {name} is one model in all groups: they have one lr, not {sorted(rates)}")
        (lr,) = rates
        return check(lr=(lr, 0 <= lr < math.inf))["lr"]

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def _model(self, point: Point) -> Callable[[float], Move]:
        """The step as a function of the constant."""
        raise NotImplementedError

    def _point(self, closure: Closure | BlockModel, leaves: list[Tensor]) -> Point:
        """Where the step begins."""
        if isinstance(closure, BlockModel):
            point = self._blocks(closure, leaves)
            if point is not None:
                return point
        closure = self.repeatable(closure)  # type: ignore[arg-type]
        whole = GraphPoint(closure, leaves, self._curvature(), whole=self._whole())
        return self._within(whole) if whole.leaves else whole

    def _blocks(self, model: BlockModel, leaves: list[Tensor]) -> Point | None:
        """The same by a model that knows its own blocks; None where these are of no use."""
        if not self._dense:
            return None
        by_graph = callable(model) and not self._curvature()
        gradient = GraphPoint(model, leaves, False).g if by_graph else None  # type: ignore[arg-type]
        return BlockPoint(model, leaves, torch.arange(self.n), gradient)

    def _within(self, whole: Point) -> Point:
        """The point in the space in which the step is looked for: the whole one, unless a subclass looks at less."""
        return whole

    def _whole(self) -> bool:
        """Whether something of the user's own counts coordinates, so that those without a gradient stay in."""
        return False

    def _curvature(self) -> bool:
        """Whether this step needs second derivatives of the closure."""
        return True

    def _first(self, point: Point, constant: float) -> float:
        """The constant of the first trial point."""
        return constant

    def _forget(self) -> None:
        """Other parameters move now: what was kept of the last step no longer fits."""

    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        """What is kept for the next step, under the names in `_memory`."""

    def _space(self, point: Point) -> Space:
        """The Hessian of the loss in the whole space, or in a Krylov space."""
        if self.krylov is None:
            return whole_space(point.g, point.dense())
        return krylov_space(point, point.operator(), self.krylov)

    # -- the step -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Closure | BlockModel | None = None) -> Tensor:  # type: ignore[override]
        """One step; see the class. Returns the loss at the point where it began, a float64 scalar.

        Raises:
            ValueError: no closure, or one that calls `backward()`; groups with several lr; the first loss is not
                finite, or 40 trial points in a row were not. Parameters are as before.
            FloatingPointError: derivatives are not finite.
            RuntimeError, TypeError: see `Solver.evaluate`.
        """
        if closure is None:
            raise ValueError(
                f"{type(self).__name__} needs step(closure), for it looks at the loss at several points: {MANUAL}; "
                "transformers.Trainer has no closure to give"
            )
        leaves, lr = self._movable(), self._lr()
        if not leaves:
            self.last = None
            with torch.enable_grad():
                value = (
                    closure.value() if isinstance(closure, BlockModel) else check_loss(closure(), differentiable=False)
                )
            return torch.tensor(float(value), dtype=torch.float64)
        point = self._point(closure, leaves)
        if not math.isfinite(point.loss):
            raise ValueError(f"the loss is {point.loss} before the step: there is nothing to build a model on")
        loss = torch.tensor(point.loss, dtype=torch.float64)
        moved = [i for i, p in enumerate(self._parameters()) if any(p is leaf for leaf in point.leaves)]
        if self._moved not in (None, moved):
            self._forget()
        self._moved = moved
        if not point.leaves:
            self.last = None
            return loss
        try:
            move, self.last = self._try(point, lr)
            self._finish(point, move, self.last.accepted)
        except BaseException:  # Ctrl-C at a trial point, say
            point.reject()
            raise
        point.accept() if self.last.accepted else point.reject()
        if self._failures >= TRIES:
            self._failures = 0
            raise ValueError(
                f"the loss was not finite at {TRIES} trial points in a row ({self._constant} is {self.last.M:.3g} now)"
            )
        return loss

    def _try(self, point: Point, lr: float) -> tuple[Move, NewtonStep]:
        """Trial points until one is accepted or the rule gives up; the constant follows."""
        group, rule = self.param_groups[0], self._acceptance
        following = self._first(point, group[self._constant])
        propose = self._model(point)
        size, noise = float(point.g.norm()), rounding(point)
        tries, stalls, kept = 0, 0, None
        while True:
            tries += 1
            used = following
            move = propose(used).scaled(lr, point.g)
            new = point.trial(move.h)
            finite, stalled = math.isfinite(new), move.decrease < noise
            if not finite:
                accepted, following = False, rule.growth * used
            elif stalled and rule.stalls:
                stalls += 1
                if kept is None:
                    kept = used if tries > 1 else group[self._constant]
                following = rule.growth * used
                accepted = new <= point.loss + noise and float(point.gradient_after().norm()) <= size
            else:
                accepted, following = rule.judge(point, move, new, used)
                if kept is None and rule.lends(move):
                    kept = used
            self._failures = 0 if finite else self._failures + 1
            if accepted or tries >= rule.tries or self._failures >= TRIES or stalls >= rule.stalls > 0:
                break
        if rule.remembers:
            for each in self.param_groups:
                each[self._constant] = following if kept is None else kept
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
            indefinite=move.indefinite,
            lr=lr,
        )

    # -- the state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Of the base class, with the random generator's state and what the solver keeps between steps."""
        own = {"solver": type(self).__name__, "generator": self.generator.get_state(), "failures": self._failures}
        own["moved"] = self._moved
        return {**super().state_dict(), "newton": own | {name: getattr(self, f"_{name}") for name in self._memory}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit. Raises `ValueError` for the state of another solver; nothing has changed then."""
        own = state_dict.get("newton", {})
        if own.get("solver") != type(self).__name__:
            raise ValueError(f"this is not the state of {type(self).__name__}")
        generator, failures = own["generator"].cpu(), own["failures"]
        memory = {f"_{name}": own[name] for name in self._memory}
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group.setdefault("lr", 1.0)  # states of versions before 0.4 have none
        self.generator.set_state(generator)
        self._failures, self._moved = failures, own.get("moved")
        vars(self).update(memory)
