"""When a step is taken, and the solver's constant after it.

With f the loss where the step began, f+ at the trial point, -m(h) what the model promised and M the constant, which
shortens the step as it grows. With an lr that is not 1 all of this is of the step that is made, lr times the model's
minimiser: for an M that bounds the third derivative f <= m along all of that line, so that what is promised there is
kept as well. A method with a rule of its own keeps it beside its update, as one more `Acceptance`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from typing_extensions import override

from solvers.second_order.trial_point import Move, Point

TRIES = 40  # trial points of a step, and points in a row at which f is not finite
SMALLEST = 1e-10  # of constants that are halved
ACCEPT, GOOD = 0.05, 0.9
STALLED = 100.0  # roundings of f

Rule = Literal["doubling", "ratio", "fixed"]


@dataclass(frozen=True)
class Acceptance(ABC):
    """A rule of acceptance.

    Attributes:
        growth: what multiplies the constant after a trial point that was of no use; below 1 where the constant
            lengthens the step.
        tries: trial points of a step, at most.
        stalls: as many of them where differences of losses are rounding; 0 if the rule compares no losses.
        remembers: the next step starts from the constant at which this one ended, not from the first one again.
    """

    growth: float = 2.0
    tries: int = TRIES
    stalls: int = 8
    remembers: bool = True

    @abstractmethod
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        """(whether the step is taken, the next constant) where the loss is finite, `new`, after a move with `used`."""

    def lends(self, move: Move) -> bool:
        """Whether the constant changes for this step alone."""
        return False


def rounding(point: Point) -> float:
    """What differences of losses cannot tell."""
    return STALLED * point.eps * max(1.0, abs(point.loss))


def gradient_left(point: Point, move: Move) -> Tensor:
    """g+ - (1 - lr) g, for the step lr h with (H + lam I) h = -g: -lr lam h where the model is exact."""
    return point.gradient_after() - (1.0 - move.lr) * point.g


@dataclass(frozen=True)
class Doubling(Acceptance):
    """Taken iff f - f+ >= -m(h), M / 2 is the next one; else tried again with 2 M (Nesterov and Polyak 2006)."""

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        accepted = point.loss - new >= move.decrease
        return accepted, max(0.5 * used, SMALLEST) if accepted else self.growth * used


@dataclass(frozen=True)
class Ratio(Acceptance):
    """One trial point, taken iff rho = (f - f+) / -m(h) >= 0.05 and f falls: the experiments of arXiv 2406.16666.

    M / 2 follows if rho >= 0.9, 1.5 M if rho < 0.05.

    Attributes:
        share: of the cubic term that the judged model has: 1, or 1/2 as in the script of these experiments, whose steps
            minimise (sigma / 3) ||h||^3, M = 2 sigma, and are judged with (sigma / 6) ||h||^3.
    """

    growth: float = 1.5
    tries: int = 1
    share: float = 1.0

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        ratio = (point.loss - new) / (move.decrease + (1.0 - self.share) * move.cubic)
        following = max(0.5 * used, SMALLEST) if ratio >= GOOD else used if ratio >= ACCEPT else self.growth * used
        return ratio >= ACCEPT and new <= point.loss, following


@dataclass(frozen=True)
class Fixed(Acceptance):
    """Taken wherever f+ is finite, and M stays: for M above the Lipschitz constant of the Hessian."""

    growth: float = 1.5
    tries: int = 1
    stalls: int = 0

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        return True, used


@dataclass(frozen=True)
class ConvexFixed(Acceptance):
    """As `Fixed`, of methods for convex losses: where the Hessian is indefinite only if f does not rise.

    For such a step alone the constant grows until that is so.
    """

    stalls: int = 0

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        accepted = not move.indefinite or new <= point.loss + rounding(point)
        return accepted, used if accepted else self.growth * used

    @override
    def lends(self, move: Move) -> bool:
        return move.indefinite


RULES: dict[str, type[Acceptance]] = {"doubling": Doubling, "ratio": Ratio, "fixed": Fixed}
