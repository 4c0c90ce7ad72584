"""Claims of the literature, each with the rule that decides it, and what comes of judging one.

    @claim("name", literature="what is said, and where", criterion="the rule with its numbers", needs="gd-*")
    def settles(results: Results) -> Verdict:
        plateaus = {name: plateau(data) for name, data in results.data("gd-*").items()}
        return every(plateaus, lambda p: 0.95 <= p <= 1.15, lambda name, p: f"{name}: {p:.2f}")

The criterion is text that is printed with its verdict; it is written down before anything is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from probes.errors import one_line
from probes.sweep.work import JobResult
from probes.trace.trace import Trace

T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """What was found: `holds` by the criterion (None: it could not be told), in words and in numbers for JSON."""

    holds: bool | None
    measured: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def all_hold(answers: Iterable[bool | None]) -> bool | None:
    """False if one is False; None without answers, or when one is missing; else True."""
    answers = list(answers)
    if any(answer is not None and not answer for answer in answers):
        return False
    return None if not answers or None in answers else True


def every(
    found: Mapping[str, T],
    holds: Callable[[T], bool | None],
    tell: Callable[[str, T], str],
    *,
    numbers: Mapping[str, Any] | None = None,
    before: str = "",
    after: str = "",
) -> Verdict:
    """The verdict of a claim that must hold of every entry.

    Args:
        found: what was measured, by name.
        holds: the criterion for one entry, combined by `all_hold`.
        tell: one entry in words, joined by "; " between the texts `before` and `after`.
        numbers: for JSON; default: `found` itself.
    """
    told = "; ".join(tell(name, value) for name, value in found.items())
    kept = dict(found) if numbers is None else numbers
    return Verdict(all_hold(holds(value) for value in found.values()), f"{before}{told}{after}", kept)


class Results:
    """What the jobs left, by name: their data and traces."""

    def __init__(self, jobs: Mapping[str, JobResult]) -> None:
        self.jobs = dict(jobs)

    def data(self, *patterns: str) -> dict[str, Any]:
        """The data of the finished jobs whose names match one of the patterns, in the order of the experiment."""
        return {name: job.data for name, job in self._matching(*patterns).items() if job.error is None}

    def family(self, prefix: str) -> dict[str, Any]:
        """The data of the finished jobs whose names begin so, by the rest of the name."""
        return {name.removeprefix(prefix): data for name, data in self.data(f"{prefix}*").items()}

    def one(self, name: str) -> Any:
        """The data of one job."""
        return self.data(name)[name]

    def trace(self, name: str) -> Trace:
        """The trace of a job, open for reading."""
        return Trace.open(self.jobs[name].trace)

    def failures(self, pattern: str) -> dict[str, str]:
        """The reasons of the failed jobs whose names match."""
        return {name: job.error for name, job in self._matching(pattern).items() if job.error is not None}

    def _matching(self, *patterns: str) -> dict[str, JobResult]:
        return {name: job for name, job in self.jobs.items() if any(fnmatchcase(name, p) for p in patterns)}


Judge = Callable[[Results], Verdict]


@dataclass(frozen=True)
class ClaimResult:
    """A claim beside what was measured.

    Attributes:
        name: a few words.
        literature: what is claimed, and where.
        criterion: the rule that decides, with its numbers.
        measured: what was found.
        holds: by the criterion; None when it was not measured, and `measured` says why.
        numbers: behind `measured`.
    """

    name: str
    literature: str
    criterion: str
    measured: str
    holds: bool | None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answer(self) -> str:
        """`yes`, `no` or `not measured`."""
        return {True: "yes", False: "no", None: "not measured"}[self.holds]


@dataclass(frozen=True)
class Claim:
    """A claim before it is measured, with the function that applies its criterion to the results."""

    name: str
    literature: str
    criterion: str
    needs: tuple[str, ...]
    judge: Judge
    quick: bool

    def measure(self, results: Results, *, quick: bool = False) -> ClaimResult:
        """The claim as it stands after the jobs that it `needs`; without one of them it is not measured."""
        failed = {name: why for pattern in self.needs for name, why in results.failures(pattern).items()}
        why = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        try:
            verdict = Verdict(None, f"not measured: {why}") if failed else self.judge(results)
        except Exception as error:
            verdict = Verdict(None, f"not measured: the rule failed with {type(error).__name__}: {one_line(error)}")
        if quick and not self.quick and verdict.holds is not None:
            measured = f"{verdict.measured} (quick: too short to tell)"
            verdict = dataclasses.replace(verdict, holds=None, measured=measured)
        return ClaimResult(self.name, self.literature, self.criterion, verdict.measured, verdict.holds, verdict.numbers)


def claim(
    name: str, *, literature: str, criterion: str, needs: str | Sequence[str], quick: bool = False
) -> Callable[[Judge], Claim]:
    """A decorator that turns the function applying the criterion into a `Claim`.

    `needs` are patterns of job names; `quick`: the reduced experiment is enough to tell.
    """
    patterns = (needs,) if isinstance(needs, str) else tuple(needs)
    return lambda judge: Claim(name, literature, criterion, patterns, judge, quick)
