"""A sweep from the first run to the picture: measured, priced, run by an engine, told and written down."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from probes.environment import environment
from probes.files import atomic_file
from probes.sweep.checkpoint import SECONDS
from probes.sweep.curves import curves_table
from probes.sweep.display import Bars
from probes.sweep.engines.choose import Choice
from probes.sweep.figures import sensitivity_figure
from probes.sweep.jobs import Job, write_json
from probes.sweep.price import LIMIT, Price, firsts, price
from probes.sweep.runner import Runner, forget
from probes.sweep.sweep import Sweep, Swept
from probes.sweep.training import Trial
from probes.sweep.work import JobResult


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Under which a sweep is run.

    Attributes:
        engine: that runs it.
        seed: from which the seeds of the runs derive.
        fresh: forget what is there.
        dry: measure the first runs, say what the rest takes, and leave it.
        per_hour: what an hour of one run costs.
        checkpoint: seconds from one checkpoint of a run to the next.
        limit: seconds that each first run is given.
    """

    engine: Choice = dataclasses.field(default_factory=Choice)
    seed: int = 0
    fresh: bool = False
    dry: bool = False
    per_hour: float | None = None
    checkpoint: float = SECONDS
    limit: float = LIMIT


def conduct(
    sweep: Sweep, folder: Path, conditions: Conditions, results: Console, notes: Console
) -> tuple[Price, Swept | None]:
    """Run the sweep in its folder; what its runs take, and what was found unless it was a dry run.

    Prices and progress go to `notes`, the table and the paths of what was written to `results`. Raises `UserError`
    for what cannot be made, and when no run succeeded.
    """
    sweep.check()
    told, found = run_jobs(sweep.jobs(), folder, conditions, results if conditions.dry else notes, notes)
    if found is None:
        return told, None
    swept = sweep.read(found)
    results.print(curves_table(swept.curves, f"{sweep.problem}, {sweep.steps} steps, {sweep.seeds} seeds"))
    for solver, why in swept.failures.items():
        results.print(f"{solver} failed: {why}", markup=False, soft_wrap=True)
    for path in (*write(swept, sweep, folder), folder / "jobs"):
        results.print(f"  {path}", markup=False, soft_wrap=True)
    return told, swept


def run_jobs(
    jobs: Sequence[Job], folder: Path, conditions: Conditions, prices: Console, notes: Console, threads: int = 1
) -> tuple[Price, dict[str, JobResult] | None]:
    """Run first ones of the jobs to learn what they take, say it on `prices`, and run the rest unless it is a dry run.

    Each runs in `folder`/jobs; how far they are is told on `notes`.
    """
    runner = Runner(folder / "jobs", conditions.seed, threads=threads, checkpoint=conditions.checkpoint)
    if conditions.fresh:
        forget(runner.work(job) for job in jobs)
    engine, at_once = conditions.engine.start(folder.absolute() / conditions.engine.name, threads)
    try:
        first = firsts(runner, jobs)
        if first:
            notes.print(f"{len(jobs)} runs; measured first: {len(first)}", markup=False, soft_wrap=True)
        with Bars(notes, len(first)) as bars:
            tried = runner.run(first, at_once=at_once, engine=engine, limit=conditions.limit, listener=bars.tell)
        told = price(runner, jobs, at_once, conditions.per_hour)
        for line in told.lines():
            prices.print(line, markup=False, soft_wrap=True)
        if conditions.dry:
            for name, result in tried.items():
                if result.error is not None:
                    prices.print(f"{name} failed: {result.error}", markup=False, soft_wrap=True)
            return told, None
        failed = {name: result for name, result in tried.items() if result.error is not None}
        rest = [job for job in jobs if job.name not in failed]
        with Bars(notes, len(rest)) as bars:
            found = failed | runner.run(rest, at_once=at_once, engine=engine, listener=bars.tell)
        return told, {job.name: found[job.name] for job in jobs}
    finally:
        if engine is not None:
            engine.close()


def write(found: Swept, sweep: Sweep, folder: Path) -> list[Path]:
    """Write `runs.csv`, `sweep.json` and `sensitivity.png`; the paths written."""
    path, text = folder / "runs.csv", io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Trial)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in found.rows)
    with atomic_file(path) as partial:  # another sweep in this folder may be writing it as well
        partial.write_text(text.getvalue())
    report = {
        "sweep": dataclasses.asdict(sweep),
        "environment": environment(),
        "failures": dict(found.failures),
        "solvers": {
            curve.solver: {
                "best_lr": float(curve.lrs[curve.best]),
                "loss": float(curve.mean[curve.best]),
                "sensitivity": curve.sensitivity,
                "decades": curve.decades(),
                "diverged": int(curve.diverged.sum()),
            }
            for curve in found.curves
        },
    }
    write_json(folder / "sweep.json", report)
    picture = sensitivity_figure(found.curves, folder / "sensitivity.png", f"{sweep.problem}, {sweep.steps} steps")
    return [path, folder / "sweep.json", picture]
