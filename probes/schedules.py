"""Schedules: at which calls of the monitor a probe is due.

A schedule holds no state: it decides from this call and the one before. A point that lies between two calls, because
the monitor is not called at every step, is due at the later one, and a resumed run goes on with the same schedule.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Moment:
    """A point of the training run: what schedules decide on."""

    step: int
    epoch: float | None = None
    raw_loss: Any = field(default=None, repr=False, compare=False)

    @property
    def loss(self) -> float | None:
        """The loss given to the monitor; read only when it is asked for, since that waits for the device."""
        loss = self.raw_loss
        return None if loss is None else float(loss.detach() if hasattr(loss, "detach") else loss)


class Schedule(Protocol):
    """Says when a probe is due."""

    def due(self, now: Moment, before: Moment | None) -> bool:
        """Whether to measure now; `before` is the call before this one, None at the first."""


@dataclass(frozen=True)
class Every:
    """Due at the multiples of `steps`. Raises `ValueError` for steps < 1.

    Example:
        >>> from probes import Every, Moment
        >>> [step for step in range(25) if Every(10).due(Moment(step), None)]
        [0, 10, 20]
    """

    steps: int = 1

    def __post_init__(self) -> None:
        _positive_integer("every=", self.steps)

    def due(self, now: Moment, before: Moment | None) -> bool:
        """Whether a multiple lies after the call before, up to this one."""
        return _is_new(now.step // self.steps * self.steps, now, before)


@dataclass(frozen=True)
class LogSpaced:
    """Due at step 0 and at `per_decade` steps in each decade: 1, 10, 100, ... and between them 10^(i / per_decade).

    Raises `ValueError` for per_decade < 1.

    Example:
        >>> from probes import LogSpaced, Moment
        >>> [step for step in range(1001) if LogSpaced(2).due(Moment(step), None)]
        [0, 1, 3, 10, 32, 100, 316, 1000]
    """

    per_decade: int = 10

    def __post_init__(self) -> None:
        _positive_integer("per_decade=", self.per_decade)

    def due(self, now: Moment, before: Moment | None) -> bool:
        """Whether such a step lies after the call before, up to this one."""
        if now.step < 1:
            return _is_new(0, now, before)
        i = math.floor(self.per_decade * math.log10(now.step)) + 1  # rounding may lift a point above its step
        points = (round(10.0 ** (j / self.per_decade)) for j in range(i, -1, -1))
        return _is_new(next(point for point in points if point <= now.step), now, before)


@dataclass(frozen=True)
class Epochs:
    """Due at the first call and whenever `epoch` has passed a multiple of `epochs`.

    The monitor must be called with `epoch=`, the number of the epoch or the epochs done so far (fractions too);
    `due` raises `ValueError` otherwise.

    Example:
        >>> from probes import Epochs, Moment
        >>> Epochs(2).due(Moment(9, epoch=2.1), Moment(8, epoch=1.9))
        True
        >>> Epochs(2).due(Moment(10, epoch=2.3), Moment(9, epoch=2.1))
        False
    """

    epochs: int = 1

    def __post_init__(self) -> None:
        _positive_integer("epochs=", self.epochs)

    def due(self, now: Moment, before: Moment | None) -> bool:
        """Whether an epoch that counts has begun since the call before."""
        if now.epoch is None:
            raise ValueError("a schedule by epochs needs monitor(step, epoch=...)")
        if before is None or before.epoch is None or math.isnan(before.epoch):
            return True
        return math.floor(now.epoch / self.epochs) > math.floor(before.epoch / self.epochs)


@dataclass(frozen=True, init=False)
class At:
    """Due at the chosen steps, `At(0, 100, 1000)` or `At([0, 100, 1000])`.

    Example:
        >>> from probes import At, Moment
        >>> [step for step in range(200) if At(0, 1, 100).due(Moment(step), None)]
        [0, 1, 100]
        >>> At(100).due(Moment(103), Moment(98))  # the monitor was not called at step 100
        True
    """

    steps: tuple[int, ...]

    def __init__(self, *steps: int | Iterable[int]) -> None:
        flat = [s for part in steps for s in (part if isinstance(part, Iterable) else [part])]
        if not flat or any(isinstance(s, bool) or int(s) != s or s < 0 for s in flat):
            raise ValueError(f"chosen steps are integers >= 0, not {flat or 'none at all'}")
        object.__setattr__(self, "steps", tuple(sorted({int(s) for s in flat})))

    def due(self, now: Moment, before: Moment | None) -> bool:
        """Whether a chosen step lies after the call before, up to this one."""
        i = bisect.bisect_right(self.steps, now.step)
        return i > 0 and _is_new(self.steps[i - 1], now, before)


@dataclass(frozen=True)
class When:
    """Due when `condition(now)` holds, asked at the calls at which `every` (a number of steps or a schedule) is due.

    `now` has `.step`, `.epoch` and `.loss`: `When(lambda now: now.loss < 0.1, every=100)`.

    Example:
        >>> from probes import Moment, When
        >>> schedule = When(lambda now: now.loss < 0.1, every=100)
        >>> [schedule.due(Moment(step, raw_loss=0.05), None) for step in (0, 50, 100)]
        [True, False, True]
    """

    condition: Callable[[Moment], bool]
    every: int | Schedule = 1

    def __post_init__(self) -> None:
        if not callable(self.condition):
            raise ValueError(f"condition is a function of the moment, not {self.condition!r}")
        as_schedule(self.every)

    def due(self, now: Moment, before: Moment | None) -> bool:
        """Whether it is asked now, and holds."""
        return as_schedule(self.every).due(now, before) and bool(self.condition(now))


def as_schedule(every: Any) -> Schedule:
    """`every` itself when it is a schedule; `Every(every)` for a number. Raises `ValueError` for anything else."""
    return every if hasattr(every, "due") else Every(every)


def _is_new(point: int, now: Moment, before: Moment | None) -> bool:
    """Whether `point`, at most now, is now or lies after the call before."""
    return point == now.step or (before is not None and point > before.step)


def _positive_integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        kind = "a number of steps >= 1 or a schedule" if name == "every=" else "an integer >= 1"
        raise ValueError(f"{name} is {kind}, not {value!r}")
