"""Experiments: jobs, the claims that they decide, and pictures; measured, judged and laid beside one another.

    if __name__ == "__main__":
        main(Experiment("name", __doc__, plan, (settles,), figures))

A claim that does not hold is a result like any other: the table says so, and the exit status is 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from probes.environment import environment
from probes.sweep.display import Bars
from probes.sweep.engines.choose import Choice
from probes.sweep.jobs import Job, write_json
from probes.sweep.runner import Runner
from probes.terminal import err
from runs.engine.claims import Claim, ClaimResult, Results
from runs.engine.display import claims_table, details, index
from runs.engine.options import add_data, add_engine, chosen_engine, ending, natural, use_data

OUT = Path("runs/out")


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
    claims: Sequence[Claim]
    figures: Callable[[Results, Path], Sequence[Path]] | None = None
    threads: int = 1

    @property
    def page(self) -> str:
        """The file in docs/ that shows its claims."""
        return f"{self.name.replace('_', '-')}.md"

    def run(
        self,
        folder: Path,
        *,
        seed: int = 0,
        quick: bool = False,
        fresh: bool = False,
        at_once: int | None = None,
        console: Console | None = None,
        engine: Choice | None = None,
    ) -> list[ClaimResult]:
        """Run the jobs that have no result yet, judge, draw, write `claims.json` and `claims.md`; the claims.

        Quick and full results lie in folders of their own. `engine` runs the jobs; default: processes, `at_once`.
        """
        started, jobs = time.perf_counter(), self.plan(quick)
        folder = folder / ("quick" if quick else "full")
        runner = Runner(folder / "jobs", seed, threads=self.threads)
        engine = engine or Choice(at_once=at_once)
        started_engine, workers = engine.start(folder.absolute() / engine.name, self.threads)
        try:
            with Bars(None if console is None else err(), len(jobs), "jobs") as bars:
                ran = runner.run(jobs, at_once=workers, fresh=fresh, listener=bars.tell, engine=started_engine)
        finally:
            if started_engine is not None:
                started_engine.close()
        results = Results(ran)
        claims = [claim.measure(results, quick=quick) for claim in self.claims]
        written = [folder / "claims.json", folder / "claims.md"]
        write_json(written[0], self._report(jobs, results, claims, quick=quick, seed=seed))
        written[1].write_text(f"{index(claims)}\n{details(claims)}")
        written += [] if self.figures is None else self.figures(results, folder)
        if console is not None:
            self._print(console, results, claims, time.perf_counter() - started, written)
        return claims

    def _report(
        self, jobs: Sequence[Job], results: Results, claims: Sequence[ClaimResult], **run: Any
    ) -> dict[str, Any]:
        ran = {job.name: (job, results.jobs[job.name]) for job in jobs}
        return {
            "experiment": self.name,
            "title": self.title.splitlines()[0],
            **run,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
            "seconds": round(sum(result.seconds for _, result in ran.values()), 1),
            "jobs": {
                name: {"settings": dict(job.settings), "seconds": round(result.seconds, 2), "error": result.error}
                for name, (job, result) in ran.items()
            },
            "claims": [dataclasses.asdict(found) for found in claims],
        }

    def _print(
        self, console: Console, results: Results, claims: Sequence[ClaimResult], seconds: float, written: Sequence[Path]
    ) -> None:
        console.print(claims_table(self.title.splitlines()[0], claims))
        for name, why in results.failures("*").items():
            console.print(f"job {name} failed: {why}", markup=False, soft_wrap=True)
        resumed = sum(job.resumed for job in results.jobs.values())
        earlier = f", {resumed} of {len(results.jobs)} jobs from before" if resumed else ""
        console.print(f"Done in {seconds:.0f} s{earlier}. Written:")
        for path in written:
            console.print(f"  {path}", markup=False, soft_wrap=True)


def main(experiment: Experiment, words: Sequence[str] | None = None) -> None:
    """The command of an experiment's module; Ctrl-C ends with status 130 and keeps the jobs that are finished."""
    parser = argparse.ArgumentParser(description=experiment.title, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="reduced: does it run at all")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--out", type=Path, default=OUT / experiment.name, help="folder (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="run all jobs again, for example after a change of code")
    add_data(parser)
    add_engine(parser)
    chosen = parser.parse_args(words)
    console = Console(width=None if Console().is_terminal else 160)
    use_data(chosen)
    options = {"seed": chosen.seed, "quick": chosen.quick, "fresh": chosen.fresh}
    with ending(console):
        experiment.run(chosen.out, console=console, engine=chosen_engine(chosen), **options)
