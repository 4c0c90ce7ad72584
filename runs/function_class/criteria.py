"""What the claims of `runs.function_class` are decided by: numbers out of traces, and plain functions of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from landscape.regularity import Trajectory, alpha_beta
from probes.instruments.function_class import trajectory
from probes.numbers import short
from runs.engine.claims import Results

Array = NDArray[np.float64]
PAPER = "Islamov et al. 2024"
GAP = 0.1  # the paper takes the smallest pair with alpha >= beta + 0.1
SEED = "-seed-"


@dataclass(frozen=True)
class Smallest:
    """The smallest pair of one configuration: beta at gap 0.1, of several runs.

    Attributes:
        seeds: of each run alone; the one for all at once is the largest of them.
        most: for 99 % of the steps of each run.
        turned: what each run needs with all gradients turned around.
        losses: f(x_K) - f^* of each run, with f_k^* = 0.
        vacuous: in how many runs some pair had to work, since f_k(x_K) > f_k^* at every step.
    """

    seeds: tuple[float, ...]
    most: tuple[float, ...]
    turned: tuple[float, ...]
    losses: tuple[float, ...]
    vacuous: int

    @property
    def beta(self) -> float:
        """One for all runs at once."""
        return max(self.seeds)

    @property
    def median(self) -> float:
        """Of the runs."""
        return float(np.median(self.seeds))

    @property
    def floors(self) -> tuple[float, ...]:
        """beta f(x_K) of each run, the noise floor of the theorems."""
        return tuple(b * loss for b, loss in zip(self.seeds, self.losses, strict=True))

    def __str__(self) -> str:
        most = short(float(np.median(self.most)), 3)
        return f"{short(self.beta, 3)} (median {short(self.median, 3)}, of 99 % of the steps {most})"


@dataclass(frozen=True)
class Trend:
    """Rank correlation of a quantity with the size, over runs of several seeds.

    Attributes:
        each: of the runs of each seed, 0 where the quantity does not vary.
        mean, low, high: their mean, and its 95 % interval by Student's t.
    """

    each: tuple[float, ...]
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"rank correlation {self.mean:+.2f} ({self.low:+.2f} … {self.high:+.2f})"


def trend(values: Sequence[Sequence[float]]) -> Trend:
    """Of numbers by size and seed, with the sizes in order."""
    table = np.array(values, dtype=np.float64)
    order = np.arange(len(table))
    varies = [bool((column != column[0]).any()) for column in table.T]
    each = [
        float(stats.spearmanr(order, column).statistic) if v else 0.0 for column, v in zip(table.T, varies, strict=True)
    ]
    mean, count = float(np.mean(each)), len(each)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(each, ddof=1) / count**0.5) if count > 1 else math.inf
    return Trend(tuple(each), mean, max(-1.0, mean - half), min(1.0, mean + half))


def peak_inside(values: Sequence[float]) -> bool:
    """Neither the first nor the last exceeds the largest of those between."""
    return len(values) > 2 and max(values[1:-1]) >= max(values[0], values[-1])


def jobs_of(results: Results, *patterns: str) -> dict[str, list[str]]:
    """The jobs of each configuration, one for each seed, by the configuration's name."""
    found: dict[str, list[str]] = {}
    for name in results.data(*patterns):
        found.setdefault(name.rpartition(SEED)[0], []).append(name)
    return found


def rows_of(results: Results, job: str, group: str = "batch") -> Trajectory:
    """The rows of a run: of each step's batch, or of the `whole` loss every few steps."""
    with results.trace(job) as trace:
        return trajectory(trace[group])


def turned(t: Trajectory) -> Trajectory:
    """The rows with every gradient turned around."""
    kept = t.loss, t.final_loss, t.infimum, t.grad_norm, t.distance
    return Trajectory(-t.inner, *kept, steps=t.steps, rounding=t.rounding)


def smallest(results: Results, jobs: Sequence[str]) -> Smallest:
    """What the runs of a configuration say of the alpha-beta-condition."""
    runs = [rows_of(results, job) for job in jobs]
    found = [alpha_beta(t, GAP) for t in runs]
    return Smallest(
        seeds=tuple(f.beta for f in found),
        most=tuple(alpha_beta(t, GAP, quantile=0.99).beta for t in runs),
        turned=tuple(alpha_beta(turned(t), GAP).beta for t in runs),
        losses=tuple(results.one(job)["loss"] for job in jobs),
        vacuous=sum(f.vacuous for f in found),
    )


def smallest_of(results: Results, *patterns: str) -> dict[str, Smallest]:
    """By configuration."""
    return {name: smallest(results, jobs) for name, jobs in jobs_of(results, *patterns).items()}


def family(results: Results, pattern: str) -> dict[str, Smallest]:
    """By the last part of the configurations' names: a size or an optimizer."""
    return {name.rpartition("-")[2]: found for name, found in smallest_of(results, pattern).items()}


def vacuous_text(found: Mapping[str, Smallest]) -> str:
    """How often "some pair works" says nothing."""
    runs = sum(len(s.seeds) for s in found.values())
    return f"vacuous in {sum(s.vacuous for s in found.values())} of {runs} runs"


def as_json(found: Mapping[str, Smallest]) -> dict[str, Any]:
    """For JSON, where there is no inf."""
    fields = "seeds", "most", "turned", "losses"
    return {
        name: {key: [*map(number, getattr(s, key))] for key in fields} | {"vacuous": s.vacuous}
        for name, s in found.items()
    }


def number(value: float) -> float | str:
    """Five digits; `"inf"` for what JSON does not know."""
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def first_part(t: Trajectory, share: float) -> NDArray[np.bool_]:
    """The rows whose steps are in the first share of the run."""
    steps = np.asarray(t.steps)
    return steps < steps.max() * share
