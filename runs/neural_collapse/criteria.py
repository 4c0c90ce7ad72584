"""What the claims of `runs.neural_collapse` are decided by: plain functions of the runs' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probes.numbers import short
from runs.engine.claims import Results
from runs.neural_collapse.models import OPTIMIZERS, family

Row = dict[str, Any]
PAPER = "arXiv 2602.16642"
ACCURACY = 0.99  # on the training images, below which a run does not count


def runs(results: Results, pattern: str = "grid-*") -> list[Row]:
    """The runs that did not diverge, with their seeds, whether they count or not."""
    return [
        row | {"seed": int(name.rpartition("-s")[2]) if "-s" in name else 0}
        for name, row in results.data(pattern).items()
        if "train" in row
    ]


def counting(rows: Sequence[Row]) -> list[Row]:
    """Those that classify at least 99 % of the training images rightly."""
    return [row for row in rows if row["train"]["accuracy"] >= ACCURACY]


def chosen(rows: Sequence[Row], **settings: Any) -> list[Row]:
    """Those with these settings."""
    return [row for row in rows if all(row[key] == value for key, value in settings.items())]


def by_network(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By network, in the order in which they come."""
    return {name: chosen(rows, network=name) for name in dict.fromkeys(row["network"] for row in rows)}


def means(rows: Sequence[Row], metric: str, side: str = "train") -> dict[str, float]:
    """By optimizer: the geometric mean over seeds."""
    values = {name: [row[side][metric] for row in own] for name, own in by_optimizer(rows).items()}
    return {name: float(np.exp(np.log(np.maximum(v, 1e-300)).mean())) for name, v in values.items()}


def by_optimizer(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By optimizer, in `OPTIMIZERS`' order, those that have runs."""
    found = {optimizer: chosen(rows, optimizer=optimizer) for optimizer in OPTIMIZERS}
    return {optimizer: own for optimizer, own in found.items() if own}


def in_order(values: dict[str, float], *groups: Sequence[str]) -> bool | None:
    """Whether every value of a group lies below every one of the next; None when one is missing."""
    if any(name not in values for group in groups for name in group):
        return None
    return all(max(values[a] for a in low) < min(values[b] for b in high) for low, high in pairwise(groups))


def ordered(values: dict[str, float]) -> str:
    """`SGD 0.01 < Adam 0.3`: from low to high."""
    return " < ".join(f"{name} {short(value, 2)}" for name, value in sorted(values.items(), key=lambda item: item[1]))


def decay_effect(rows: Sequence[Row], optimizer: str) -> tuple[float, float] | None:
    """(largest decay among these runs, NC0 there over that without decay); None without such a pair.

    Without decay the two kinds of decay are one, so a run of the coupled optimizer stands for both.
    """
    without = chosen(rows, optimizer=family(optimizer), decay=0.0)
    decayed = [row for row in chosen(rows, optimizer=optimizer) if row["decay"] > 0]
    if not without or not decayed:
        return None
    most = max(decayed, key=lambda row: float(row["decay"]))
    return float(most["decay"]), most["train"]["nc0"] / without[0]["train"]["nc0"]


def regression(x: ArrayLike, y: ArrayLike) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of least squares."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    return float(slope), float(intercept), float(1 - residual.var() / y.var())
