"""A sweep: solver x step size x seed as jobs with one trace each, and what they found."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.errors import UserError
from probes.numbers import short
from probes.sweep import problems, solvers
from probes.sweep.curves import LossCurve, curves
from probes.sweep.engines.engine import Engine
from probes.sweep.jobs import Job
from probes.sweep.runner import Listener, Runner
from probes.sweep.training import SCHEDULES, Trial, run_one
from probes.sweep.work import JobResult
from probes.trace.set import TraceSet


@dataclass(frozen=True)
class Sweep:
    """What is run.

    Attributes:
        problem: FILE.py:FUNCTION or module:function.
        solvers: module:Class with options; one with `lr=` runs at that step size alone.
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

    @staticmethod
    def problem_of(name: str) -> str:
        """Where the problem of that name is: here each is its own name."""
        return name

    @staticmethod
    def solver_of(name: str) -> str:
        """Where the solver of that name is, with its options."""
        return name

    def __post_init__(self) -> None:
        for name in ("solvers", "lrs"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or not (values or name == "lrs"):
                given = ", ".join(map(str, values)) or "none"
                raise ValueError(f"{name} must be given, and each one once, not {given}")
        if not all(lr > 0 and math.isfinite(lr) for lr in self.lrs):
            raise ValueError(f"step sizes are positive and finite, not {', '.join(f'{lr:g}' for lr in self.lrs)}")
        for name in ("seeds", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {', '.join(SCHEDULES)}, not {self.schedule!r}")
        for solver in self.solvers:
            if not self.grid(solver):
                raise ValueError(f"{solver} has no step size: give --lr, or lr= among its options")

    def grid(self, solver: str) -> Sequence[float]:
        """The step sizes of a solver: its own, or those of the sweep."""
        own = solvers.own_lr(self.solver_of(solver))
        return self.lrs if own is None else (own,)

    def jobs(self) -> list[Job]:
        """A job for each run, named SOLVER-LR-SEED; runs of one seed share a stream."""
        name, where, digest = problems.locate(self.problem_of(self.problem))
        name = name if ":" in self.problem else self.problem
        common = {"problem": name, "digest": digest, "steps": self.steps, "batch": self.batch}
        common |= {"schedule": self.schedule}
        made = []
        for solver in self.solvers:
            spec = self.solver_of(solver)
            for lr, seed in itertools.product(self.grid(solver), range(self.seeds)):
                settings = common | {"solver": solver, "spec": spec, "lr": lr, "seed": seed}
                job = f"{slug(solver)}-{short(lr, 6)}-{seed}"
                made.append(Job(job, run_one, settings, f"{name}-{seed}", {"where": where}, kind=solver))
        return made

    def check(self) -> None:
        """Raise `UserError` for a problem or a solver that cannot be made: before any process is started."""
        _, where, _ = problems.locate(self.problem_of(self.problem))
        made = problems.build(where, 0)
        for solver in self.solvers:
            solvers.make(self.solver_of(solver), made.objective.leaves(), self.grid(solver)[0], made.objective)

    def run(
        self,
        folder: Path,
        *,
        seed: int = 0,
        at_once: int = 1,
        fresh: bool = False,
        listener: Listener | None = None,
        engine: Engine | None = None,
    ) -> Swept:
        """Run what has no result in the folder yet; all that was found.

        Raises `UserError` when no run succeeded.
        """
        runner = Runner(folder / "jobs", seed)
        return self.read(runner.run(self.jobs(), at_once=at_once, fresh=fresh, listener=listener, engine=engine))

    def read(self, results: Mapping[str, JobResult]) -> Swept:
        """What the jobs left. A solver with a run that failed is left out, and `failures` says why."""
        rows: dict[str, list[Trial]] = {solver: [] for solver in self.solvers}
        failures: dict[str, str] = {}
        for job in self.jobs():
            result, solver = results[job.name], str(job.settings["solver"])
            if result.error is not None:
                failures.setdefault(solver, result.error)
            else:
                rows[solver].append(Trial.of(result.data))
        good = [row for solver in self.solvers if solver not in failures for row in rows[solver]]
        if not good:
            raise UserError(f"every solver failed; {next(iter(failures))}: {next(iter(failures.values()))}")
        return Swept(tuple(good), tuple(results[job.name].trace for job in self.jobs()), failures)


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        rows: a run each.
        paths: of the traces.
        failures: solver -> why its first failed run failed.
    """

    rows: tuple[Trial, ...]
    paths: tuple[Path, ...]
    failures: Mapping[str, str]

    @property
    def curves(self) -> list[LossCurve]:
        """One for each solver."""
        return curves(self.rows)

    @property
    def traces(self) -> TraceSet:
        """The traces of all runs: `loss` has a row a step, `whole` the start and some ten looks at all data."""
        return TraceSet.open([path for path in self.paths if path.exists()])


def slug(text: str) -> str:
    """Letters, digits, "-" and "." only, for names of files."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
