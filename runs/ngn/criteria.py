"""What the claims of `runs.ngn` measure in the runs of a solver on a network: scores over step sizes and seeds.

The score is the test accuracy, of text the test loss with its sign turned. Sensitivity is that of arXiv 2508.15071
(section 2, after Wortsman et al. 2023): the mean over the grid of min{l_0, l} - l*, l = -score at the end, l_0 at the
start, l* the smallest over the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.sweep.curves import standard_error
from runs.engine.claims import Results
from runs.ngn.jobs import SEEDS

Array = NDArray[np.float64]
NAMES = {
    "sgd-m": "SGDM",
    "momo": "MoMo",
    "ngn-m": "NGN-M",
    "ngn": "NGN",
    "adam": "Adam",
    "momo-adam": "MoMo-Adam",
    "ngn-md1": "NGN-MDv1",
    "ngn-md2": "NGN-MDv2",
}


@dataclass(frozen=True)
class Scores:
    """A solver over the step sizes.

    Attributes:
        lrs: `(L,)`, ascending.
        values: `(L, S)`, the score at the end, at least that at the start: a run that was lost is as good as none.
        losses: `(L, S)`, the training loss at the end, at most that at the start.
        start: `(S,)`, the score at the start.
    """

    lrs: Array
    values: Array
    losses: Array
    start: Array

    @property
    def mean(self) -> Array:
        """`(L,)`, over the seeds."""
        return self.values.mean(axis=1)

    @property
    def best(self) -> int:
        """Position of the step size with the best mean score."""
        return int(self.mean.argmax())

    @property
    def sensitivity(self) -> Array:
        """`(S,)`, each seed against its own best."""
        return (self.values.max(axis=0) - self.values).mean(axis=0)

    def drop(self, decades: int) -> float:
        """How far the mean score falls from its best to so many decades above; to the end of the grid if beyond."""
        at = min(self.best + decades, len(self.lrs) - 1)
        return float(self.mean[self.best] - self.mean[at])

    def decades(self, good: NDArray[np.bool_]) -> float:
        """log10 of the largest over the smallest step size of the longest stretch that is good `(L,)`; -1 for none."""
        longest = run = 0
        for one in good:
            run = run + 1 if one else 0
            longest = max(longest, run)
        return float(longest - 1)


def rows(results: Results, network: str, solver: str) -> list[dict[str, Any]]:
    """All runs of a solver on a network."""
    return [row for seed in seeds(results, network, solver) for row in seed["rows"]]


def seeds(results: Results, network: str, solver: str) -> list[Any]:
    """The data of a solver's jobs on a network, one for each seed."""
    found = [results.data(f"{network}-{solver}-{seed}") for seed in range(SEEDS)]
    return [data for one in found for data in one.values()]


def scores(results: Results, network: str, solver: str) -> Scores:
    """The scores of a solver on a network. Raises `IndexError` where there are none."""
    by_seed = [list(_runs(data["rows"], network)) for data in seeds(results, network, solver)]
    lrs = np.array([row["lr"] for row in seeds(results, network, solver)[0]["rows"]])
    values, losses, start = (np.array([[run[i] for run in runs] for runs in by_seed]).T for i in range(3))
    return Scores(lrs, values, losses, start[0])


def _runs(found: list[dict[str, Any]], network: str) -> Iterator[tuple[float, float, float]]:
    sign, name = (-1.0, "test_loss") if network == "text" else (1.0, "test_accuracy")
    for row in found:
        start, end, loss = sign * row[f"first_{name}"], row[name], row["loss"]
        first = row["first_loss"]
        yield (start if end is None else max(start, sign * end)), (first if loss is None else min(first, loss)), start


def mean_and_error(values: Array) -> tuple[float, float]:
    """The mean `(S,)` and its standard error."""
    return float(values.mean()), float(standard_error(values[None])[0])
