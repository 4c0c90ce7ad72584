"""What the claims of `runs.edge_of_stability` are decided by: numbers out of traces, and plain functions of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.numbers import plus_minus
from runs.engine.claims import Results

Array = NDArray[np.float64]


def reached(ratios: Array) -> int | None:
    """The first measurement at or above 2/eta, of eta/2 times the sharpness."""
    above = np.flatnonzero(ratios >= 1)
    return int(above[0]) if len(above) else None


def plateau(ratios: Array) -> float:
    """The median over the last third."""
    return float(np.median(ratios[len(ratios) * 2 // 3 :]))


def share_raised(losses: Array) -> float:
    """The share of steps that raise the loss by more than float32 rounds."""
    return float((losses[1:] > losses[:-1] * (1 + 1e-6)).mean()) if len(losses) > 1 else 0.0


def long_run(losses: Array) -> float:
    """The mean loss of the last fifth over that of the first fifth."""
    part = max(1, len(losses) // 5)
    return float(losses[-part:].mean() / losses[:part].mean())


# -- from the jobs' traces -----------------------------------------------------------------------------------


def ratios_of(results: Results, pattern: str, group: str) -> dict[str, Array]:
    """eta/2 times what a group's probe measured, by job."""
    found = {}
    for name, data in results.data(pattern).items():
        with results.trace(name) as trace:
            found[name] = np.asarray(trace[group]["value"], dtype=float) * data["rate"] / 2
    return found


def plateaus_of(results: Results, pattern: str, group: str) -> dict[str, float]:
    """The plateau of each of `ratios_of`."""
    return {name: plateau(ratios) for name, ratios in ratios_of(results, pattern, group).items()}


def masses_at_zero(results: Results, name: str) -> list[tuple[float, float]]:
    """Share of the eigenvalues within 1 % of the largest around zero, with its error, before and after."""
    found = []
    with results.trace(name) as trace:
        density, spectrum = trace["density"].read(), trace["spectrum"].read()
    for nodes, weights, values in zip(density["nodes"], density["weights"], spectrum["values"], strict=True):
        shares = (weights * (np.abs(nodes) <= 0.01 * values[0])).sum(axis=1)
        found.append((float(shares.mean()), float(shares.std(ddof=1) / len(shares) ** 0.5)))
    return found


def in_thresholds(run: dict[str, Any]) -> str:
    """The trace over 2/eta, or that there is none."""
    if not run["kept"]:
        return "diverged"
    return plus_minus(run["trace"] * run["rate"] / 2, run["stderr"] * run["rate"] / 2)


def suffix(name: str) -> str:
    """The last part of a job's name: its step size, batch size or number of classes."""
    return name.rpartition("-")[2]


def rounded_lists(ratios: dict[str, Array]) -> dict[str, list[float]]:
    """For JSON."""
    return {name: [round(float(v), 4) for v in r] for name, r in ratios.items()}
