"""What a benchmark ran on, peak memory, and times in alternation: shared by all benchmarks."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the JSON beside the numbers."""
    packages = ("torch", "numpy", "h5py", "pyhessian", "curvlinops-for-pytorch", "landscape-engine")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "packages": {name: _version(name) for name in packages},
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each way, `rounds` times, one after the other in each round so that all see the same weather."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            synchronise(device)
            start = time.perf_counter()
            way()
            synchronise(device)
            times[name].append(time.perf_counter() - start)
    return times


def in_units_of(unit: list[float], times: list[float]) -> tuple[float, float, float]:
    """(median, lower and upper quartile) of the ratios to the unit of the same round."""
    ratios = [t / u for t, u in zip(times, unit, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratios[0],) * 3
    return middle, low, high


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(way: Callable[[], object], device: torch.device) -> int | None:
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
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls left cached would hide this one's need
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
        way()
        return max(0, _status("VmHWM") - before)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
