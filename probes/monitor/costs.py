"""What a probe's first measurement will take, from one product (or pass) of each kind that it needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from probes.context import Context
from probes.monitor.together import ranks_of
from probes.probe import Probe

_SHORT = 2.0  # seconds: a first run this short may be mostly warming up (imports, kernels), and is run again


class UnitCosts:
    """Seconds of one forward pass, one gradient, and one product of each kind of operator, timed when asked for.

    `known` has those that were timed already.
    """

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self._seconds: dict[str, float] = dict(known or {})

    def estimate(self, probe: Probe, context: Context) -> float | None:
        """Seconds that the probe's first measurement will take; None when it does not say what it needs."""
        expected = getattr(probe, "expected", None)
        if expected is None:
            return None
        return sum(count * self.of(unit, context) for unit, count in expected(context).items() if count)

    def of(self, unit: str, context: Context) -> float:
        """Seconds of one "value", "gradient", all "eigenvalues" of 512 rows, or product of that operator."""
        if unit not in self._seconds:
            self._seconds[unit] = self._time(unit, context)
        return self._seconds[unit]

    def _time(self, unit: str, context: Context) -> float:
        if unit in ("value", "gradient"):
            return _seconds_of(getattr(context.objective, unit), context)
        if unit == "eigenvalues":
            import torch

            matrix = torch.eye(512, dtype=torch.float64, device=context.objective.device) + 1e-3
            return _seconds_of(lambda: torch.linalg.eigvalsh(matrix), context)
        A = context.operator(unit)
        v = A.random(1, "normal", context.generator)[:, 0]
        return _seconds_of(lambda: A @ v, context)


def _seconds_of(run: Any, context: Context) -> float:
    """Seconds of a run, of the second one if the first was short."""
    for _ in range(2):
        start = time.perf_counter()
        run()
        synchronise(context.objective)
        seconds = ranks_of(context.objective).largest(time.perf_counter() - start)  # all run it as often
        if seconds > _SHORT:
            break
    return seconds


def synchronise(objective: Any) -> None:
    """Wait for what the device still has to do, so that a clock reading means something."""
    device = getattr(objective, "device", None)
    if device is not None:
        from landscape import clock

        clock.synchronise(device)
