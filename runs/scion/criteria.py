"""What the claims of `runs.scion` measure: losses by batch size, the best step size, what falls and what stays."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runs.engine.claims import Results
from runs.scion.jobs import mean_loss

LIMIT = 1 + 0.5 / 100  # of two losses that count as alike; the paper's two differ by 0.2 %


def best_row(rows: Sequence[Any]) -> Any:
    """The settings with the smallest mean loss."""
    return min(rows, key=mean_loss)


def mean_error(values: Sequence[float | None]) -> tuple[float, float]:
    """Mean and standard error; (inf, 0) where a run diverged."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return math.inf, 0.0
    return statistics.fmean(known), statistics.stdev(known) / len(known) ** 0.5


def best_losses(results: Results, prefix: str = "batch-") -> dict[int, tuple[float, float]]:
    """Mean and standard error over seeds of the loss at the best step size, by batch size (or what the jobs end in)."""
    jobs = results.family(prefix)
    return {int(b): mean_error(best_row(rows)["loss"]) for b, rows in sorted(jobs.items(), key=lambda job: int(job[0]))}


def above(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By how many standard errors of their difference one mean is above another."""
    error = math.hypot(one[1], other[1])
    return (one[0] - other[0]) / error if error else math.inf * (one[0] > other[0])


def least(losses: Mapping[int, tuple[float, float]]) -> int:
    """The batch size with the smallest loss."""
    return min(losses, key=lambda b: losses[b][0])


def best_lr(rows: Sequence[Any], key: str = "lr") -> float:
    """Where a parabola in log of the step size through the best and its two neighbours is least; the best at an edge.

    `key`: of another setting that was varied.
    """
    tried = sorted(rows, key=lambda row: row[key])
    at = min(range(len(tried)), key=lambda i: mean_loss(tried[i]))
    near = tried[max(0, at - 1) : at + 2]
    if len(near) < 3 or not all(math.isfinite(mean_loss(row)) for row in near):
        return float(tried[at][key])
    x = np.log([row[key] for row in near])
    c2, c1, _ = np.polyfit(x - x[1], [mean_loss(row) for row in near], 2)
    return float(math.exp(x[1] + np.clip(-c1 / (2 * c2), x[0] - x[1], x[2] - x[1])))


def edge(rows: Sequence[Any], key: str = "lr") -> bool:
    """Whether the best is the smallest or the largest that was tried."""
    tried = sorted(rows, key=lambda row: row[key])
    return best_row(rows) in (tried[0], tried[-1])


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y = c x^p by least squares in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def straight(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """R^2 of the straight line through the points, and the largest slope between neighbours over the smallest.

    The ratio is inf where y does not rise throughout.
    """
    slopes = np.diff(y) / np.diff(x)
    rest = np.asarray(y) - np.polyval(np.polyfit(x, y, 1), x)
    ratio = float(slopes.max() / slopes.min()) if slopes.min() > 0 else math.inf
    return float(1 - rest.var() / np.var(y)), ratio
