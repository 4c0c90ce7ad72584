"""What a sweep will take: its first runs are measured, one of each kind, and the rest is reckoned from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probes.numbers import duration
from probes.sweep.jobs import Job
from probes.sweep.runner import Runner

LIMIT = 30.0  # seconds that a first run is given; what it has done by then stands, and it goes on later


@dataclass(frozen=True)
class Price:
    """What is left to do.

    Attributes:
        runs: of the whole sweep.
        finished: of these.
        seconds: kind of job -> of one run, as measured.
        rest: seconds of all runs that are left, one after the other.
        at_once: how many of them run at a time.
        per_hour: what an hour of one run costs; None where nobody said.
        unknown: kinds of which nothing could be measured.
    """

    runs: int
    finished: int
    seconds: Mapping[str, float]
    rest: float
    at_once: int
    per_hour: float | None = None
    unknown: tuple[str, ...] = ()

    @property
    def cost(self) -> float | None:
        """Of what is left."""
        return None if self.per_hour is None else self.rest / 3600 * self.per_hour

    def lines(self) -> list[str]:
        """In words."""
        left = self.runs - self.finished
        each = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in self.seconds.items())
        said = [f"a run takes: {each}"] if each else []
        said.append(f"{self.finished} of {self.runs} runs are finished, {left} to go")
        if left and self.seconds:
            workers = f", {duration(self.rest / self.at_once)} with {self.at_once} at once" if self.at_once > 1 else ""
            cost = "" if self.cost is None else f", {self.cost:,.2f} at {self.per_hour:g} an hour"
            said.append(f"the rest takes {duration(self.rest)} of runs ({self.rest / 3600:,.3g} h){workers}{cost}")
        if self.unknown:
            said.append(f"not measured, and left out of the rest: {', '.join(self.unknown)}")
        return said


def firsts(runner: Runner, jobs: Sequence[Job]) -> list[Job]:
    """The first job of each kind that has no finished one."""
    known = {job.kind for job in jobs if runner.finished(job) is not None}
    found: dict[str, Job] = {}
    for job in jobs:
        if job.kind not in known:
            found.setdefault(job.kind, job)
    return list(found.values())


def price(runner: Runner, jobs: Sequence[Job], at_once: int, per_hour: float | None = None) -> Price:
    """What the jobs take, from the results that are there and the runs that were paused."""
    seen: dict[str, list[float]] = {}
    left: dict[str, list[float]] = {}  # shares of runs, by kind
    for job in jobs:
        paused = runner.paused.get(job.name)
        if (found := runner.finished(job)) is not None:
            seen.setdefault(job.kind, []).append(found.seconds)
        else:
            if paused is not None:
                seen.setdefault(job.kind, []).append(paused.seconds)
            left.setdefault(job.kind, []).append(1.0 if paused is None else 1.0 - paused.share)
    seconds = {kind: sum(times) / len(times) for kind, times in seen.items()}
    rest = sum(seconds[kind] * sum(shares) for kind, shares in left.items() if kind in seconds)
    unknown = tuple(kind for kind in left if kind not in seconds)
    finished = len(jobs) - sum(map(len, left.values()))
    return Price(len(jobs), finished, seconds, rest, max(1, at_once), per_hour, unknown)
