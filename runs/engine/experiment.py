"""Experiments: claims of the literature, each with the rule that decides it, measured and laid beside one another.

    @claim("name", literature="what is said, and where", criterion="the rule with its numbers", needs="gd-*")
    def settles(results: Results) -> Verdict: ...

    if __name__ == "__main__":
        main(Experiment("name", __doc__, plan, (settles,), figures))

The rule is text that is printed with its verdict, and it is written down before anything is measured. A claim that does
not hold is a result like any other: the table says so, and the exit status is 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from probes.environment import environment
from probes.errors import one_line
from probes.trace.trace import Trace
from probes.views.tables import table
from runs.engine.jobs import Job, write_json
from runs.engine.workshop import Outcome, Workshop

OUT = Path("runs/out")


@dataclass(frozen=True)
class Verdict:
    """What was found: `holds` by the criterion (None: it could not be told), in words and in numbers for JSON."""

    holds: bool | None
    measured: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
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


class Results:
    """What the jobs left, by name: their data and traces."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self.outcomes = dict(outcomes)

    def data(self, pattern: str) -> dict[str, Any]:
        """The data of the finished jobs whose names match, in the order of the experiment."""
        found = {name: outcome.data for name, outcome in self.outcomes.items() if fnmatchcase(name, pattern)}
        return {name: data for name, data in found.items() if self.outcomes[name].error is None}

    def trace(self, name: str) -> Trace:
        """The trace of a job, open for reading."""
        return Trace.open(self.outcomes[name].trace)

    def failures(self, pattern: str) -> dict[str, str]:
        """The reasons of the failed jobs whose names match."""
        named = {name: outcome.error for name, outcome in self.outcomes.items() if fnmatchcase(name, pattern)}
        return {name: error for name, error in named.items() if error is not None}


Judge = Callable[[Results], Verdict]


@dataclass(frozen=True)
class Statement:
    """A claim before it is measured, with the function that applies its criterion to the results."""

    name: str
    literature: str
    criterion: str
    needs: tuple[str, ...]
    judge: Judge
    quick: bool

    def measure(self, results: Results, *, quick: bool = False) -> Claim:
        """The claim as it stands after the jobs that it `needs`; without one of them it is not measured."""
        failed = {name: why for pattern in self.needs for name, why in results.failures(pattern).items()}
        if failed:
            verdict = Verdict(None, "not measured: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
        else:
            try:
                verdict = self.judge(results)
            except Exception as error:
                verdict = Verdict(None, f"not measured: the rule failed with {type(error).__name__}: {one_line(error)}")
        if quick and not self.quick and verdict.holds is not None:
            verdict = dataclasses.replace(
                verdict, holds=None, measured=f"{verdict.measured} (quick: too short to tell)"
            )
        return Claim(self.name, self.literature, self.criterion, verdict.measured, verdict.holds, verdict.numbers)


def claim(
    name: str, *, literature: str, criterion: str, needs: str | Sequence[str], quick: bool = False
) -> Callable[[Judge], Statement]:
    """A decorator that turns the function applying the criterion into a `Statement`.

    `needs` are patterns of job names; `quick`: the reduced experiment is enough to tell.
    """
    patterns = (needs,) if isinstance(needs, str) else tuple(needs)
    return lambda judge: Statement(name, literature, criterion, patterns, judge, quick)


@dataclass(frozen=True)
class Experiment:
    """Jobs, the claims that they decide, and pictures.

    Attributes:
        name: of the results' folder.
        title: its first line heads the table.
        plan: the jobs; called with True for a reduced experiment.
        claims: in the table's order.
        figures: called with (results, folder), returns the pictures that it wrote.
        threads: of torch in each job.
    """

    name: str
    title: str
    plan: Callable[[bool], Sequence[Job]]
    claims: Sequence[Statement]
    figures: Callable[[Results, Path], Sequence[Path]] | None = None
    threads: int = 1

    def run(
        self,
        folder: Path,
        *,
        seed: int = 0,
        quick: bool = False,
        fresh: bool = False,
        at_once: int = 1,
        console: Console | None = None,
    ) -> list[Claim]:
        """Run the jobs that have no result yet, judge, draw, write `claims.json` and `claims.md`; the claims.

        Quick and full results lie in folders of their own.
        """
        started = time.perf_counter()
        folder = folder / ("quick" if quick else "full")
        workshop = Workshop(folder / "jobs", seed, threads=self.threads)
        jobs = self.plan(quick)
        with Bars(console, len(jobs)) as bars:
            outcomes = workshop.run(jobs, at_once=at_once, fresh=fresh, listener=bars.tell)
        results = Results(outcomes)
        claims = [statement.measure(results, quick=quick) for statement in self.claims]
        title = self.title.splitlines()[0]
        report = {
            "experiment": self.name,
            "title": title,
            "quick": quick,
            "seed": seed,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
            "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
            "jobs": {job.name: _account(job, outcomes[job.name]) for job in jobs},
            "claims": [dataclasses.asdict(found) for found in claims],
        }
        write_json(folder / "claims.json", report)
        (folder / "claims.md").write_text(markdown(claims))
        drawn = [] if self.figures is None else list(self.figures(results, folder))
        if console is not None:
            console.print(claims_table(title, claims))
            for name, why in results.failures("*").items():
                console.print(f"job {name} failed: {why}", markup=False, soft_wrap=True)
            taken = sum(outcome.resumed for outcome in outcomes.values())
            earlier = f", {taken} of {len(jobs)} jobs from before" if taken else ""
            console.print(f"Done in {time.perf_counter() - started:.0f} s{earlier}. Written:")
            for path in [folder / "claims.json", folder / "claims.md", *drawn]:
                console.print(f"  {path}", markup=False, soft_wrap=True)
        return claims


def claims_table(title: str, claims: Sequence[Claim]) -> Table:
    """The claims for the terminal, the criterion below what it decides on."""
    view = table(title=title, caption="Each criterion was written down before the run that it judges.")
    view.show_lines = True
    for heading, ratio in (("claim", 3), ("literature", 4), ("measured", 5), ("holds", 1)):
        view.add_column(heading, ratio=ratio, overflow="fold")
    for found in claims:
        colour = {True: "green", False: "red", None: "yellow"}[found.holds]
        rule = f"[dim]holds if {_plain(found.criterion)}[/]"
        cells = _plain(found.name), f"{_plain(found.literature)}\n{rule}", _plain(found.measured)
        view.add_row(*cells, f"[{colour}]{found.answer}[/]")
    return view


def markdown(claims: Sequence[Claim]) -> str:
    """The claims as the table of an experiment's page in docs/."""
    rows = [(c.name, f"{c.literature}. Holds if {c.criterion}", c.measured, c.answer) for c in claims]
    cells = [("claim", "literature, criterion", "measured", "holds"), ("---",) * 4, *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |\n" for row in cells)


def main(experiment: Experiment, words: Sequence[str] | None = None) -> None:
    """The command of an experiment's module; Ctrl-C ends with status 130 and keeps the jobs that are finished."""
    parser = argparse.ArgumentParser(description=experiment.title, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="reduced: does it run at all")
    parser.add_argument("--seed", type=_natural, default=0)
    parser.add_argument("--out", type=Path, default=OUT / experiment.name, help="folder (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="run all jobs again, for example after a change of code")
    parser.add_argument("--jobs", type=_natural, default=1, metavar="N", help="jobs at once, each in its own process")
    chosen = parser.parse_args(words)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    try:
        experiment.run(
            chosen.out,
            seed=chosen.seed,
            quick=chosen.quick,
            fresh=chosen.fresh,
            at_once=max(chosen.jobs, 1),
            console=console,
        )
    except KeyboardInterrupt:
        console.print("Interrupted: the same command goes on from here.")
        raise SystemExit(130) from None


class Bars:
    """Bars on a terminal: one for the experiment, one for each job that runs. Nothing in a pipe."""

    def __init__(self, console: Console | None, jobs: int) -> None:
        shown = console is not None and console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}")
        self.view = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not shown)
        self.all = self.view.add_task("jobs", total=jobs)
        self.running: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self.view.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.view.stop()

    def tell(self, name: str, done: int, planned: int, outcome: Outcome | None = None) -> None:
        """A listener of `Workshop.run`."""
        if outcome is not None:
            self.view.advance(self.all)
            if name in self.running:
                self.view.remove_task(self.running.pop(name))
            return
        if name not in self.running:
            self.running[name] = self.view.add_task(name, total=planned)
        self.view.update(self.running[name], completed=done, total=planned)


def _account(job: Job, outcome: Outcome) -> dict[str, Any]:
    return {"settings": dict(job.settings), "seconds": round(outcome.seconds, 2), "error": outcome.error}


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"a number >= 0, not {text}")
    return value


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
