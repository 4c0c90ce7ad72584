"""Several ways to the same product: the fastest one is found once, on the spot, and kept.

They agree up to rounding, and time decides between them: two runs of one program may differ in the last digits. Under
`torch.use_deterministic_algorithms(True)` no clock is asked, and the first way that works is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

from landscape.clock import stopwatch
from landscape.ranks import Ranks

# Seconds: a trial shorter than this is repeated more often.
_SHORT = 0.25


class Tuning:
    """Which way of a product is fastest for one function on one device, and what does not work for it.

    fixed: nothing is tried, as each product of a sharded model is work of all ranks: the first way is taken.
    """

    def __init__(self, device: torch.device, refused: set[str] | None = None, *, fixed: bool = False) -> None:
        self._device = device
        self._chosen: dict[str, str] = {}
        self._seconds: dict[str, dict[str, float]] = {}
        self._settled: set[Hashable] = set()
        self._refused = set() if refused is None else refused
        self._fixed = fixed

    def part(self) -> Tuning:
        """For some of the parameters: what does not work is known to both, what is fastest is found anew."""
        return Tuning(self._device, self._refused, fixed=self._fixed)

    def fastest(self, key: str, ways: Mapping[str, Callable[[], Tensor]]) -> Tensor:
        """The result by the way that was fastest when `key` was asked for first; that time by the first that works.

        All ways are tried then. The first one that works is the reference; ways that fail, fall back to a loop
        inside torch, or disagree with the reference beyond rounding are left out. Raises what the first way raised
        when none works.
        """
        if self._fixed:  # the first one is known to work
            self._chosen[key] = next(iter(ways))
        if key in self._chosen:
            return self._again(key, ways)
        result, self._seconds[key] = _compare(ways, self._device)
        self._chosen[key] = _fastest(self._seconds[key])
        return result

    def _again(self, key: str, ways: Mapping[str, Callable[[], Tensor]]) -> Tensor:
        """By the way that was chosen; by the first one where it is none for these data, from then on if it fails."""
        first = next(iter(ways))
        chosen = self._chosen[key]
        if chosen == first or chosen not in ways:
            return ways[first]()
        try:
            return ways[chosen]()
        except (RuntimeError, NotImplementedError):
            self._chosen[key] = first
            return ways[first]()

    def settle(self, kind: Hashable, ranks: Ranks) -> None:
        """After the first work of a kind: take the ways that were fastest on all ranks together; all call this."""
        if kind in self._settled or not ranks.several:
            return
        self._settled.add(kind)
        found = ranks.gathered(self._seconds)
        for key in sorted({key for seconds in found for key in seconds}):
            tried = [seconds[key] for seconds in found if key in seconds]
            # where no way works on all of them, each takes its own
            if shared := set.intersection(*(set(seconds) for seconds in tried)):
                self._chosen[key] = _fastest({way: sum(s[way] for s in tried) for way in tried[0] if way in shared})

    def choice(self, key: str) -> str | None:
        """The way that is taken for `key`; None before the first time."""
        return self._chosen.get(key)

    def refuse(self, key: str) -> None:
        """Note that something does not work here."""
        self._refused.add(key)

    def refused(self, key: str) -> bool:
        """Whether that was noted."""
        return key in self._refused


def _compare(ways: Mapping[str, Callable[[], Tensor]], device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """The result of the first way that works, and the seconds of each that agrees with it."""
    results: dict[str, Tensor] = {}
    times: dict[str, float] = {}
    failure: Exception | None = None
    for name, way in ways.items():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                seconds, result = stopwatch(way, device)
        except (RuntimeError, NotImplementedError, UserWarning) as error:
            failure = failure or error
            continue
        if not results or _agree(result, next(iter(results.values()))):
            results[name], times[name] = result, seconds
    if not results:
        assert failure is not None
        raise failure
    if len(results) > 1:
        for name in results:  # the first run of a kernel is not a fair sample
            again = 1 if times[name] > _SHORT else 4
            times[name] = min(stopwatch(ways[name], device)[0] for _ in range(again))
    return next(iter(results.values())), times


def _fastest(seconds: Mapping[str, float]) -> str:
    if torch.are_deterministic_algorithms_enabled():
        return next(iter(seconds))
    return min(seconds, key=lambda way: seconds[way])


def _agree(a: Tensor, b: Tensor) -> bool:
    # a way that is wrong is wrong by much more than the rounding of two orders of summation
    return bool((a - b).norm() <= 1e-2 * b.norm().clamp_min(torch.finfo(b.dtype).tiny))
