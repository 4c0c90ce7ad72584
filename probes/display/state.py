"""Where something stands: what is done of what there is to do, what is under way, how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probes.display.words import in_words, unit_of
from probes.numbers import duration


@dataclass
class Doing:
    """One thing under way: what is made of what is planned, the estimate by now, and when that was so."""

    clock: Callable[[], float]
    at: float
    made: int = 0
    step: int = 0  # of the last call
    planned: int | None = None
    estimate: Any = None

    def __call__(self, made: int, planned: int | None, estimate: Any = None) -> None:
        """The callback of an algorithm. It only takes note: whoever shows it does so at its own pace."""
        self.step = made - self.made if made > self.made else made  # less: another algorithm has begun
        self.made, self.planned, self.estimate, self.at = made, planned, estimate, self.clock()

    @property
    def share(self) -> float:
        """Of what is planned."""
        return min(1.0, self.made / self.planned) if self.planned else 0.0

    @property
    def next_share(self) -> float:
        """What the next news will add, if it is like the last one."""
        return min(self.step / self.planned, 1.0 - self.share) if self.planned else 1.0

    @property
    def count(self) -> str:
        """`"27 of 1000 products"`."""
        planned = f" of {self.planned}" if self.planned else ""
        return f"{self.made}{planned} {unit_of(self.estimate)}".rstrip() if self.made else ""


class State:
    """Where something stands that has `total` parts.

    Attributes:
        text: what is being done.
        noun: of what there are `total`.
        done: parts that are finished; `earlier` of them were before the clock began.
        doing: what is under way, by its name.
    """

    def __init__(self, total: int, *, noun: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.noun, self.text = total, noun, ""
        self.done = self.earlier = 0
        self.doing: dict[str, Doing] = {}
        self._clock, self._start = clock, clock()

    @property
    def _under_way(self) -> list[Doing]:
        return list(self.doing.values())  # another thread may be looking

    def show(self, text: str, done: int) -> Doing:
        """Go on with another part; the callback of its algorithm."""
        callback = self.begin()
        self.text, self.done, self.doing = text, done, {text: callback}
        return callback

    def begin(self) -> Doing:
        """One more thing under way, whose name is the caller's to give."""
        return Doing(self._clock, self._clock())

    def restart(self) -> None:
        """The clock begins now."""
        self._start = self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return self._clock() - self._start

    @property
    def share(self) -> float:
        """Of all parts, those that are under way taken in as far as they are."""
        parts = self.done + sum(one.share for one in self._under_way)
        return min(1.0, parts / self.total) if self.total else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to go, if the rest is like what was done since the clock began; None when nothing was."""
        parts, all_parts = self.share * self.total - self.earlier, self.total - self.earlier
        if parts <= 0:
            return None
        took = max((one.at for one in self._under_way), default=self._clock()) - self._start
        # what has had no news for long takes longer than what came before: it may be done at this moment at best
        next_parts = parts + sum(one.next_share for one in self._under_way)
        return max(took * all_parts / parts, self.elapsed * all_parts / next_parts) - self.elapsed

    def times(self) -> str:
        """`"42 s, about 3.1 min left"`; `at most` where there is nothing but an algorithm that may end earlier."""
        if (left := self.left) is None or left < 0.5:
            return _seconds(self.elapsed)
        capped = self.total == 1 and any(unit_of(one.estimate) == "products" for one in self._under_way)
        return f"{_seconds(self.elapsed)}, {'at most' if capped else 'about'} {_seconds(left)} left"

    def count(self) -> str:
        """`"4 of 12 runs"`."""
        return f"{self.done} of {self.total} {self.noun}".rstrip()

    def details(self) -> list[str]:
        """Of what is under way: its estimate and what was made for it; how many there are, where there are several."""
        if len(self.doing) > 1 or self.noun:
            return [f"{len(self.doing)} at work"]
        return [text for one in self._under_way for text in (in_words(one.estimate), one.count) if text]

    def line(self) -> str:
        """All of it: `"step 100 spectrum: 4 of 12, λ₁ = 12.34 ± 0.05, 27 of 1000 products, 42 s, ..."`."""
        count = [self.count()] * (self.total > 1)
        return _about(self.text, [*count, *self.details(), self.times()])

    def ended(self) -> str:
        """The last words: what was made, how long it took, what came of it."""
        took = duration(self.elapsed)
        if self.total > 1:
            return f"{self.count()} in {took}"
        told = [f"{one.made} {unit_of(one.estimate)}".rstrip() + f" in {took}" for one in self._under_way]
        return _about(self.text, [*(in_words(one.estimate) for one in self._under_way), *told])


def _about(text: str, told: list[str]) -> str:
    return ": ".join(filter(None, [text, ", ".join(filter(None, told))]))


def _seconds(seconds: float) -> str:
    """A time that is looked at while it passes: in whole seconds first."""
    return f"{seconds:.0f} s" if seconds < 120 else duration(seconds)
