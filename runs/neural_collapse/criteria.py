"""What the claims of `runs.neural_collapse` are decided by: plain functions of the runs' numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes.numbers import short
from runs.engine.claims import Control, Results
from runs.neural_collapse.models import OPTIMIZERS
from runs.neural_collapse.training import Row

PAPER = "arXiv 2602.16642"
ACCURACY = 0.99  # on the training images, below which a run does not count
FLOOR = 1e-4  # NC0 below is rounding of float32
COUNT = f"runs below {ACCURACY:.0%} train accuracy do not count"
# What a control exchanges: each optimizer with its other kind of decay.
OTHER_KIND = {"SGD": "SGDW", "Adam": "AdamW", "Signum": "SignumW"}


def runs(results: Results, pattern: str) -> list[Row]:
    """The runs of all jobs that match which did not diverge, with `job`, the name without its seed's."""
    return [
        row | {"job": name.rpartition("-s")[0] or name, "seed": name}
        for name, data in results.data(pattern).items()
        for row in data["runs"]
        if "train" in row
    ]


def counting(rows: Iterable[Row]) -> list[Row]:
    """Those that classify at least 99 % of the training images rightly."""
    return [row for row in rows if row["train"]["accuracy"] >= ACCURACY]


def chosen(rows: Iterable[Row], **settings: Any) -> list[Row]:
    """Those with these settings."""
    return [row for row in rows if all(row[key] == value for key, value in settings.items())]


def by_optimizer(rows: Iterable[Row], exchanged: bool = False) -> dict[str, list[Row]]:
    """By optimizer, in `OPTIMIZERS`' order, those that have runs; `exchanged`: under the name of the other kind."""
    rows = list(rows)
    found = {optimizer: chosen(rows, optimizer=optimizer) for optimizer in OPTIMIZERS}
    if exchanged:
        there_and_back = OTHER_KIND | {b: a for a, b in OTHER_KIND.items()}
        found = {optimizer: found[there_and_back[optimizer]] for optimizer in OPTIMIZERS}
    return {optimizer: own for optimizer, own in found.items() if own}


EXCHANGED = Control("runs with coupled and decoupled decay exchanged", lambda judge, results: judge(results, True))


def values(rows: Iterable[Row], metric: str) -> NDArray[np.float64]:
    """A metric on training features at the end."""
    return np.array([row["train"][metric] for row in rows], dtype=float)


def median(numbers: ArrayLike) -> float:
    """As a float; nan of none."""
    numbers = np.asarray(numbers, dtype=float)
    return float(np.median(numbers)) if numbers.size else float("nan")


def medians(found: Mapping[str, Iterable[Row]], metric: str) -> dict[str, float]:
    """The median of each group."""
    return {name: median(values(own, metric)) for name, own in found.items()}


def best(rows: Iterable[Row]) -> Row:
    """The run with the lowest NC3."""
    return min(rows, key=lambda row: float(row["train"]["nc3"]))


def in_order(found: Mapping[str, float], *groups: Sequence[str], slack: float = 0.0) -> bool | None:
    """Whether every value of a group lies below every one of the next, or above by `slack` at most; None if missing."""
    if any(name not in found for group in groups for name in group):
        return None
    ends = ((max(found[a] for a in low), min(found[b] for b in high)) for low, high in pairwise(groups))
    return all(low < high + slack for low, high in ends)


def ordered(found: Mapping[str, float]) -> str:
    """`SGD 0.01 < Adam 0.3`: from low to high."""
    return " < ".join(f"{name} {short(value, 2)}" for name, value in sorted(found.items(), key=lambda item: item[1]))


def not_rising(numbers: Sequence[float], slack: float = 0.01) -> bool:
    """Whether there are several, none above the one before by more than `slack`, and the last below the first."""
    return len(numbers) > 1 and all(b <= a + slack for a, b in pairwise(numbers)) and numbers[-1] < numbers[0]


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's, ties at their mean rank; nan of constants."""
    a, b = _ranks(x), _ranks(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(x: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(x, dtype=float)
    below, same = (x[:, None] > x).sum(1), (x[:, None] == x).sum(1)
    return np.asarray(below + (same - 1) / 2, dtype=np.float64)


def interval(statistic: Callable[[NDArray[np.int64]], float], size: int, draws: int = 400) -> tuple[float, float]:
    """The middle 95 % of a statistic of resampled places `0 ... size - 1`; draws without a value are left out."""
    random = np.random.default_rng(0)
    found = np.array([statistic(random.integers(0, size, size)) for _ in range(draws)])
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if found.size else (np.nan, np.nan)
    return float(low), float(high)


def shuffled(numbers: ArrayLike) -> NDArray[np.float64]:
    """In a fixed random order, for controls."""
    return np.random.default_rng(1).permutation(np.asarray(numbers, dtype=float))


def regression(x: ArrayLike, y: ArrayLike) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of least squares."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    return float(slope), float(intercept), float(1 - residual.var() / y.var())
