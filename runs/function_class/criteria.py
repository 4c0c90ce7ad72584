"""What the claims of `runs.function_class` are decided by: numbers out of traces, and plain functions of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.regularity import Trajectory, alpha_beta, best_ratio
from probes.instruments.function_class import trajectory
from probes.numbers import short
from runs.engine.claims import Results
from runs.shared.tables import falling, rising

Array = NDArray[np.float64]
PAPER = "Islamov et al. 2024"
GAP = 0.1  # the paper takes the smallest pair with alpha >= beta + 0.1


@dataclass(frozen=True)
class Smallest:
    """The smallest pair of one configuration: beta at gap 0.1, from several seeds.

    Attributes:
        beta: one for all seeds at once (the largest of theirs); inf when none works.
        seeds: of each run alone.
        most: for 99 % of all rows.
        at_one: beta at gap 1 of all rows.
        ratio: the least beta / (alpha - beta) of all rows, over all gaps.
        ratio_gap: where that is; inf where it falls with ever larger gaps.
        vacuous: in how many runs some pair had to work, since f_k(x_K) > f_k^* at every step.
        sigma2: mean over runs of f(x_K) - f^*, with f_k^* = 0.
        steps: rows of each run.
    """

    beta: float
    seeds: tuple[float, ...]
    most: float
    at_one: float
    ratio: float
    ratio_gap: float
    vacuous: int
    sigma2: float
    steps: int

    def __str__(self) -> str:
        return f"{short(self.beta, 3)} ({short(min(self.seeds), 3)} … {short(max(self.seeds), 3)})"


def runs_of(results: Results, job: str, *, full: bool = False) -> list[Trajectory]:
    """The rows of each seed of a job: of each step's batch, or of the whole loss every few steps."""
    with results.trace(job) as trace:
        names = [f"seed-{run['seed']}" for run in results.data(job)[job]["runs"]]
        return [trajectory(trace[f"{name}-full" if full else name]) for name in names]


def smallest(results: Results, job: str) -> Smallest:
    """What a job says of the alpha-beta-condition."""
    runs = runs_of(results, job)
    every = Trajectory.concatenate(runs)
    found, best = [alpha_beta(t, GAP) for t in runs], best_ratio(every)
    return Smallest(
        beta=alpha_beta(every, GAP).beta,
        seeds=tuple(f.beta for f in found),
        most=alpha_beta(every, GAP, quantile=0.99).beta,
        at_one=alpha_beta(every, 1.0).beta,
        ratio=best.ratio,
        ratio_gap=best.gap,
        vacuous=sum(f.vacuous for f in found),
        sigma2=float(np.mean([run["loss"] for run in results.data(job)[job]["runs"]])),
        steps=len(runs[0]),
    )


def family(results: Results, pattern: str) -> dict[str, Smallest]:
    """By the last part of the jobs' names: a size or an optimizer."""
    return {name.rpartition("-")[2]: smallest(results, name) for name in results.data(pattern)}


def smallest_of(results: Results, *patterns: str) -> dict[str, Smallest]:
    """By the jobs' names."""
    return {name: smallest(results, name) for name in results.data(*patterns)}


def vacuous_text(found: Mapping[str, Smallest]) -> str:
    """How often "some pair works" says nothing."""
    runs = sum(len(s.seeds) for s in found.values())
    return f"vacuous in {sum(s.vacuous for s in found.values())} of {runs} runs"


def rises_then_falls(values: Sequence[float]) -> bool:
    """Rises up to a value inside, falls from there on."""
    top = int(np.argmax(values))
    return rising(values[: top + 1]) and falling(values[top:])


def as_json(found: Mapping[str, Smallest]) -> dict[str, Any]:
    """For JSON, where there is no inf."""
    rounded = "beta", "most", "at_one", "ratio", "ratio_gap"
    return {
        name: vars(s) | {key: number(getattr(s, key)) for key in rounded} | {"seeds": [*map(number, s.seeds)]}
        for name, s in found.items()
    }


def number(value: float) -> float | str:
    """Five digits; `"inf"` for what JSON does not know."""
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def first_part(t: Trajectory, share: float) -> NDArray[np.bool_]:
    """The rows whose steps are in the first share of the run."""
    steps = np.asarray(t.steps)
    return steps < steps.max() * share
