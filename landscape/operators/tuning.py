"""Several ways to the same product: the fastest one is found once, on the spot, and kept."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

# Seconds: a trial shorter than this is repeated more often.
_SHORT = 0.25


def fastest(ways: dict[str, Callable[[], Tensor]], device: torch.device) -> tuple[str, Tensor]:
    """The name of the fastest way and its result.

    The first way that works is the reference; ways that fail, fall back to a loop inside torch, or disagree with the
    reference beyond rounding are left out. Raises what the first way raised when none works.
    """
    results: dict[str, Tensor] = {}
    times: dict[str, float] = {}
    failure: Exception | None = None
    for name, way in ways.items():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                seconds, result = _timed(way, device)
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
            times[name] = min(_timed(ways[name], device)[0] for _ in range(again))
    best = min(results, key=lambda name: times[name])
    return best, results[best]


def _timed(way: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    _synchronise(device)
    start = time.perf_counter()
    result = way()
    _synchronise(device)
    return time.perf_counter() - start, result


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _agree(a: Tensor, b: Tensor) -> bool:
    # a way that is wrong is wrong by much more than the rounding of two orders of summation
    return bool((a - b).norm() <= 1e-2 * b.norm().clamp_min(torch.finfo(b.dtype).tiny))
