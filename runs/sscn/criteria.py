"""What the claims of `runs.sscn` are decided by: what jobs took to their targets, compared and told."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from probes.numbers import finite, short
from runs.engine.claims import Results, Verdict
from runs.shared.tables import listed
from runs.sscn.plan import SETUPS

PAPER = "Zhao, Doikov, Lucchi 2024"
TARGET = {"mlp": "0.01", "mlp-saddle": "0.01"}  # gradient norm by problem
Race = tuple[dict[str, float], dict[str, float]]


def target(problem: str) -> str:
    """The gradient norm to reach there."""
    return TARGET.get(problem, "1e-06")


def spans(results: Results, job: str, what: str = "steps") -> list[float]:
    """What each start of a job took to its target, ascending; inf where one did not reach it."""
    data = results.one(job)
    reached = [run["to"].get(target(data["problem"])) for run in data["runs"]]
    return sorted(math.inf if found is None else float(found[what]) for found in reached)


def cost(results: Results, job: str, what: str = "steps") -> float:
    """Median over the starts of what a job took to its target; inf where a start did not reach it."""
    found = spans(results, job, what)
    return math.inf if math.isinf(found[-1]) else statistics.median(found)


def cost_or_used(results: Results, job: str, what: str) -> float:
    """That, or what the first start has used without getting there."""
    found = cost(results, job, what)
    return found if math.isfinite(found) else float(results.one(job)["runs"][0][what])


def costs(results: Results, jobs: Iterable[str], what: str = "steps") -> dict[str, float]:
    """That of several jobs."""
    return {job: cost(results, job, what) for job in jobs}


def costs_by_size(
    results: Results, problems: Iterable[str], what: str, rule: str = "doubling", *, full: bool = False
) -> dict[str, list[float]]:
    """Costs by problem, in the order of the sizes."""
    return {p: list(costs(results, names(p, rule, full=full), what).values()) for p in problems}


def names(problem: str, rule: str = "doubling", *, full: bool = False) -> list[str]:
    """The jobs of constant sizes, ascending; the whole space last."""
    jobs = [f"{problem}-{rule}-{tau}" for tau in SETUPS[problem].sizes]
    return [*jobs, f"{problem}-cubic" if rule == "doubling" else f"{problem}-{rule}-n"] if full else jobs


def best(found: Mapping[str, float]) -> dict[str, float]:
    """The smallest cost with its name, alone."""
    name = min(found, key=lambda name: found[name])
    return {name: found[name]}


def race_verdict(
    results: Results,
    races: Iterable[Race],
    what: str,
    digits: int = 3,
    beside: tuple[str, Mapping[str, float]] | None = None,
) -> Verdict:
    """Whether in each race the best of the first costs is below all of the second; with the least and largest start.

    beside: words, and what is shown behind them without being judged.
    """
    found, won = dict[str, float](), []
    for ours, theirs in races:
        found |= ours | theirs
        won.append(min(ours.values()) < min(theirs.values()))
    words, shown = beside or ("", {})
    parts = [
        listed({job: _spread(results, job, what, value, digits) for job, value in part.items()})
        for part in (found, shown)
    ]
    numbers = {
        job: {"median": finite(value), "starts": finite(spans(results, job, what))}
        for job, value in (found | dict(shown)).items()
    }
    return Verdict(all(won), f"{what}: {parts[0]}" + (f"; {words}: {parts[1]}" if shown else ""), numbers)


def _spread(results: Results, job: str, what: str, value: float, digits: int) -> str:
    starts = spans(results, job, what)
    if len(starts) == 1 or math.isinf(value):
        return _reached(value, digits)
    return f"{short(value, digits)} ({short(starts[0], digits)} … {short(starts[-1], digits)})"


def costs_text(values: Mapping[str, float], digits: int = 3) -> str:
    """`a: 1; b: not reached`."""
    return listed({name: _reached(value, digits) for name, value in values.items()})


def list_text(values: Sequence[float], digits: int = 5) -> str:
    """`10, 5, not reached`."""
    return ", ".join(_reached(value, digits) for value in values)


def _reached(value: float, digits: int) -> str:
    return short(value, digits) if math.isfinite(value) else "not reached"
