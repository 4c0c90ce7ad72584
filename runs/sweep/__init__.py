"""How sensitive solvers are to their step size: solver x step size x seed, one trace per run.

    python -m runs.sweep --problem digits-mlp --solvers sgd-m,ngn-m,adam --lr 1e-3:1e1:9 --seeds 3 --steps 300 --jobs 2
    python -m runs.sweep --problem my.py:problem --solvers torch.optim:RMSprop:alpha=0.9 --lr 0.001,0.01 -o folder

A user's problem is a function that returns `landscape.Objective(model, loss, data)`, as for `landscape probe`. In the
folder: `runs.csv`, `sweep.json`, `sensitivity.png`, and `jobs/` with the traces, which are one `TraceSet`. A killed
sweep goes on where it stopped; changed code does not run anything again without --fresh.

    found = Sweep("digits-mlp", ("ngn-m", "adam"), lrs=(0.01, 0.1, 1.0)).run(Path("folder"))
    found.curves[0].mean, found.curves[0].sensitivity, found.traces["whole"]
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from probes.environment import environment
from probes.errors import UserError, one_line
from probes.numbers import short
from probes.trace.set import TraceSet
from runs.engine.display import Bars
from runs.engine.experiment import OUT
from runs.engine.jobs import Job, write_json
from runs.engine.runner import JobResult, Listener, Runner
from runs.sweep import problems
from runs.sweep import solvers as sweep_solvers
from runs.sweep.curves import Curve, curves, curves_table
from runs.sweep.training import SCHEDULES, Row, run_one, started


@dataclass(frozen=True)
class Sweep:
    """What is run.

    Attributes:
        problem: a name of `problems.PROBLEMS`, or FILE.py:FUNCTION.
        solvers: names of `sweep_solvers.SOLVERS`, or module:Class, with options.
        lrs: step sizes.
        seeds: how many; each is one start and one order of the data, the same for all solvers and step sizes.
        steps: of each run.
        batch: size of the mini-batches, where the data are one pair of tensors.
        schedule: lr times 1 ("constant"), 1 / sqrt(k + 1) ("sqrt"), or half a cosine down to 0.

    Raises `ValueError` for a setting that is not possible, `UserError` for an unknown solver.
    """

    problem: str
    solvers: Sequence[str]
    lrs: Sequence[float]
    seeds: int = 3
    steps: int = 300
    batch: int = 64
    schedule: str = "constant"

    def __post_init__(self) -> None:
        for name in ("solvers", "lrs"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"{name} must be given, and each one once, not {', '.join(map(str, values)) or 'none'}"
                )
        if not all(lr > 0 and math.isfinite(lr) for lr in self.lrs):
            raise ValueError(f"step sizes are positive and finite, not {', '.join(f'{lr:g}' for lr in self.lrs)}")
        for name in ("seeds", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {', '.join(SCHEDULES)}, not {self.schedule!r}")
        for solver in self.solvers:
            sweep_solvers.parse(solver)

    def jobs(self) -> list[Job]:
        """A job for each run, named SOLVER-LR-SEED; runs of one seed share a stream."""
        common = {"problem": self.problem, "steps": self.steps, "batch": self.batch, "schedule": self.schedule}
        return [
            Job(
                f"{_slug(solver)}-{short(lr, 6)}-{seed}",
                run_one,
                common | {"solver": solver, "lr": lr, "seed": seed},
                f"{self.problem}-{seed}",
            )
            for solver in self.solvers
            for lr in self.lrs
            for seed in range(self.seeds)
        ]

    def run(
        self, folder: Path, *, seed: int = 0, at_once: int = 1, fresh: bool = False, listener: Listener | None = None
    ) -> Swept:
        """Run what has no result in the folder yet; all that was found.

        Raises `UserError` when no run succeeded.
        """
        outcomes = Runner(folder / "jobs", seed).run(self.jobs(), at_once=at_once, fresh=fresh, listener=listener)
        return self.read(outcomes)

    def read(self, outcomes: Mapping[str, JobResult]) -> Swept:
        """What the jobs left. A solver with a run that failed is left out, and `failures` says why."""
        rows: dict[str, list[Row]] = {solver: [] for solver in self.solvers}
        failures: dict[str, str] = {}
        for job in self.jobs():
            outcome, solver = outcomes[job.name], str(job.settings["solver"])
            if outcome.error is not None:
                failures.setdefault(solver, outcome.error)
            else:
                rows[solver].append(Row.of(outcome.data))
        good = [row for solver in self.solvers if solver not in failures for row in rows[solver]]
        if not good:
            raise UserError(f"every solver failed; {next(iter(failures))}: {next(iter(failures.values()))}")
        return Swept(tuple(good), tuple(outcomes[job.name].trace for job in self.jobs()), failures)


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        rows: a run each.
        paths: of the traces.
        failures: solver -> why its first failed run failed.
    """

    rows: tuple[Row, ...]
    paths: tuple[Path, ...]
    failures: Mapping[str, str]

    @property
    def curves(self) -> list[Curve]:
        """One for each solver."""
        return curves(self.rows)

    @property
    def traces(self) -> TraceSet:
        """The traces of all runs: `loss` has a row a step, `whole` the start and some ten looks at all data."""
        return TraceSet.open([path for path in self.paths if path.exists()])


# -- the command -----------------------------------------------------------------------------------------------------


def write(found: Swept, sweep: Sweep, folder: Path) -> list[Path]:
    """Write `runs.csv`, `sweep.json` and `sensitivity.png`; the paths written."""
    from runs.sweep.figures import sensitivity_figure

    path = folder / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in found.rows)
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


def grid(text: str) -> tuple[float, ...]:
    """`1e-3:1e1:9` is nine step sizes evenly spaced in the logarithm, `0.1,1` are two. Raises `UserError`."""
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        low, high, count = text.split(":")
        if not 0 < float(low) < float(high) < math.inf or int(count) < 2:
            raise ValueError
        # rounded, so that 0.01 is written as 0.01
        return tuple(float(f"{lr:.6g}") for lr in np.geomspace(float(low), float(high), int(count)))
    except ValueError:
        raise UserError(f"--lr is LOW:HIGH:COUNT such as 1e-3:1e1:9, or 0.01,0.1,1, not {text!r}", status=2) from None


def command(words: Sequence[str]) -> None:
    """What `python -m runs.sweep` does. Raises `UserError`."""
    parser = argparse.ArgumentParser(prog="python -m runs.sweep", description=str(__doc__).splitlines()[0])
    parser.add_argument("--problem", required=True, help=f"{', '.join(problems.PROBLEMS)} or FILE.py:FUNCTION")
    parser.add_argument("--solvers", required=True, help=f"{','.join(sweep_solvers.SOLVERS)} or module:Class, options")
    parser.add_argument("--lr", required=True, help="LOW:HIGH:COUNT in the logarithm, or a list")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--schedule", default="constant", help=", ".join(SCHEDULES))
    parser.add_argument("--seed", type=int, default=0, help="from which the seeds derive")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, each in its own process")
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    parser.add_argument("-o", "--out", type=Path, help="folder (default: runs/out/sweep/PROBLEM)")
    chosen = parser.parse_args(words)
    solvers = sweep_solvers.split_solvers(chosen.solvers)
    try:
        sweep = Sweep(
            chosen.problem, solvers, grid(chosen.lr), chosen.seeds, chosen.steps, chosen.batch, chosen.schedule
        )
    except ValueError as error:
        raise UserError(one_line(error), status=2) from error
    made = started(sweep.problem, 0)  # what is wrong with it shows before any process is started
    for solver in solvers:
        sweep_solvers.make(solver, made.objective.leaves(), sweep.lrs[0])
    folder = chosen.out or OUT / "sweep" / _slug(sweep.problem)
    console = Console(width=None if sys.stdout.isatty() else 140)
    with Bars(console, len(sweep.jobs())) as bars:
        found = sweep.run(folder, seed=chosen.seed, at_once=max(chosen.jobs, 1), fresh=chosen.fresh, listener=bars.tell)
    console.print(curves_table(found.curves, f"{sweep.problem}, {sweep.steps} steps, {sweep.seeds} seeds"))
    for solver, why in found.failures.items():
        console.print(f"{solver} failed: {why}", markup=False, soft_wrap=True)
    for path in (*write(found, sweep, folder), folder / "jobs"):
        console.print(f"  {path}", markup=False, soft_wrap=True)


def main(words: Sequence[str]) -> None:
    """`command`; what goes wrong is one line on stderr. Ctrl-C ends with status 130 and keeps what is finished."""
    try:
        command(words)
    except UserError as error:
        print(f"sweep: {error}", file=sys.stderr)
        raise SystemExit(error.status) from None
    except OSError as error:
        print(f"sweep: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("sweep: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _slug(text: str) -> str:
    """Letters, digits, "-" and "." only, for names of files."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
