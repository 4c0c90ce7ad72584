"""Times in alternation, ratios of the same round with their quartiles, and peak memory."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from landscape.clock import stopwatch, synchronise


def alternate(
    ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, *, processor: bool = False
) -> dict[str, list[float]]:
    """Seconds of each way, `rounds` times, one after the other in each round so that all see the same weather.

    With `processor` they are seconds of the processor, to which other processes do not count.
    """
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            before = time.process_time()
            seconds = stopwatch(way, device)[0]
            times[name].append(time.process_time() - before if processor else seconds)
    return times


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, lower and upper quartile)."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return middle, low, high


def in_units_of(unit: Sequence[float], times: Sequence[float]) -> tuple[float, float, float]:
    """`quartiles` of the ratios to the unit of the same round."""
    return quartiles([t / u for t, u in zip(times, unit, strict=True)])


def peak_mib(way: Callable[[], object], device: torch.device) -> float | None:
    """Memory that a call needs at its peak beyond what was there before; None where the system does not tell.

    An operator's bound product is measured from nothing: what it keeps between products is released first.
    """
    release = getattr(getattr(getattr(way, "func", way), "__self__", None), "release", None)
    if release is not None:
        release()
    synchronise(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        way()
        synchronise(device)
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls left cached would hide this one's need
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
        way()
        return round(max(0, _status("VmHWM") - before) / 2**20, 1)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
