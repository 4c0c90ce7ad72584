"""Claims of the literature, each with the rule that decides it, and what comes of judging one.

    @claim("name", source="text", literature="what is said, and where", criterion="the rule, in numbers", needs="gd-*")
    def settles(results: Results) -> Verdict:
        plateaus = {name: plateau(data) for name, data in results.data("gd-*").items()}
        return every(plateaus, lambda p: 0.95 <= p <= 1.15, lambda name, p: f"{name}: {p:.2f}")

The criterion is text that is printed with its verdict; it is written down before anything is measured. A `Control`
applies the same rule where the claim must not hold: a rule that says yes there as well cannot fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar, get_args

from probes.errors import one_line
from probes.sweep.work import JobResult
from probes.trace.trace import Trace

T = TypeVar("T")

Source = Literal["theorem", "text", "table", "figure", "abstract", "code", "derived", "own"]
"""Where a claim is made: in a paper or the code of its authors, derived here from what they say, or asked here."""


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

    def instead(self, names: Mapping[str, str]) -> Results:
        """The same results with those of some jobs in the places of others: a control's, by the name it is to bear."""
        return Results(self.jobs | {name: self.jobs[other] for name, other in names.items()})

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
class Control:
    """Where a claim must not hold.

    Attributes:
        what: is other there: shuffled labels, a wrong exponent, a solver without the property.
        verdict: called with the claim's own rule and the results; applies that rule to other results
            (`Results.instead`) or with another constant.
        needs: patterns of the jobs that it looks at, beyond those of the claim.
    """

    what: str
    verdict: Callable[[Callable[..., Verdict], Results], Verdict]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlResult:
    """What the rule of a claim says of its control; `holds` is False where the rule can fail."""

    what: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class ClaimResult:
    """A claim beside what was measured.

    Attributes:
        name: a few words.
        source: where it is made.
        literature: what is claimed, and where.
        criterion: the rule that decides, with its numbers.
        measured: what was found.
        holds: by the criterion; None when it was not measured, and `measured` says why.
        numbers: behind `measured`.
        control: the same rule where it must say no; None: there is none.
    """

    name: str
    source: Source
    literature: str
    criterion: str
    measured: str
    holds: bool | None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    control: ControlResult | None = None

    @property
    def answer(self) -> str:
        """`yes`, `no` or `not measured`."""
        return ANSWERS[self.holds]

    @property
    def published(self) -> bool:
        """It is somebody's claim, not a question of our own."""
        return self.source not in ("derived", "own")


ANSWERS = {True: "yes", False: "no", None: "not measured"}


@dataclass(frozen=True)
class Claim:
    """A claim before it is measured, with the function that applies its criterion to the results."""

    name: str
    source: Source
    literature: str
    criterion: str
    needs: tuple[str, ...]
    judge: Judge
    quick: bool
    control: Control | None = None
    other_setup: str = ""

    def measure(self, results: Results, *, quick: bool = False) -> ClaimResult:
        """The claim as it stands after the jobs that it `needs`; without one of them it is not measured."""
        verdict = _judged(self.judge, results, self.needs)
        if quick and not self.quick and verdict.holds is not None:
            measured = f"{verdict.measured} (quick: too short to tell)"
            verdict = dataclasses.replace(verdict, holds=None, measured=measured)
        if self.other_setup and verdict.holds is not None:
            here = f"{ANSWERS[verdict.holds]} here, which decides nothing about the paper: {self.other_setup}"
            verdict = dataclasses.replace(verdict, holds=None, measured=f"{verdict.measured} ({here})")
        said = self.name, self.source, self.literature, self.criterion
        return ClaimResult(*said, verdict.measured, verdict.holds, verdict.numbers, self._controlled(results))

    def _controlled(self, results: Results) -> ControlResult | None:
        control = self.control
        if control is None:
            return None
        found = _judged(lambda given: control.verdict(self.judge, given), results, self.needs + control.needs)
        return ControlResult(control.what, found.measured, found.holds)


def _judged(judge: Judge, results: Results, needs: Sequence[str]) -> Verdict:
    failed = {name: why for pattern in needs for name, why in results.failures(pattern).items()}
    why = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
    try:
        return Verdict(None, f"not measured: {why}") if failed else judge(results)
    except Exception as error:
        return Verdict(None, f"not measured: the rule failed with {type(error).__name__}: {one_line(error)}")


def claim(
    name: str,
    *,
    source: Source,
    literature: str,
    criterion: str,
    needs: str | Sequence[str],
    quick: bool = False,
    control: Control | None = None,
    other_setup: str = "",
) -> Callable[[Judge], Claim]:
    """A decorator that turns the function applying the criterion into a `Claim`.

    `needs` are patterns of job names; `quick`: the reduced experiment is enough to tell. A control that needs no
    training is judged in the reduced experiment too. `other_setup`: what is not as in the paper, where so much is not
    that the rule's answer is told and the claim stays undecided.
    """
    if source not in get_args(Source):
        raise ValueError(f"the source of {name!r} is one of {', '.join(get_args(Source))}, not {source!r}")
    patterns = (needs,) if isinstance(needs, str) else tuple(needs)
    return lambda judge: Claim(name, source, literature, criterion, patterns, judge, quick, control, other_setup)
