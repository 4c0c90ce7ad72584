"""Clock readings that mean something on a device that works in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def synchronise(device: torch.device) -> None:
    """Wait for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stopwatch(run: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """The seconds that a call takes on a device that is idle at its start and at its end, and its result."""
    synchronise(device)
    start = time.perf_counter()
    result = run()
    synchronise(device)
    return time.perf_counter() - start, result
