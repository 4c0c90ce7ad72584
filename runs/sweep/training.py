"""One run of a sweep: a solver at one step size on one problem, and what came of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.trace.layout import Field
from runs.engine.jobs import JobContext
from runs.shared.tables import finite
from runs.sweep import problems, solvers
from runs.sweep.problems import TrainingTask, evaluate

LOOKS = 10  # at the whole data, evenly spaced over a run
SCHEDULES = ("constant", "sqrt", "cosine")
_LOSS = {"value": Field((), "float64", "loss", "of the step's mini-batch, where the step began")}
_WHOLE = {
    "loss": Field((), "float64", "loss", "over the whole training data after that many steps"),
    "test_loss": Field((), "float64", "loss", "over the test data; nan without any"),
}


@dataclass(frozen=True)
class Trial:
    """One run: a solver at a step size from a seed; nan for what is not known or not finite.

    Attributes:
        solver, lr, seed: which run.
        first_loss: over the whole training data at the start.
        loss, best_loss: at the end, and the smallest that was looked at.
        accuracy, test_loss, test_accuracy: at the end.
        diverged: the loss or the parameters ceased to be finite, or the loss at the end exceeds that at the start.
        steps: that were made.
        seconds: for them.
    """

    solver: str
    lr: float
    seed: int
    first_loss: float
    loss: float
    best_loss: float = math.nan
    accuracy: float = math.nan
    test_loss: float = math.nan
    test_accuracy: float = math.nan
    diverged: bool = False
    steps: int = 0
    seconds: float = 0.0

    @property
    def capped(self) -> float:
        """min(first_loss, loss): a run that diverged is as good as none."""
        return self.first_loss if self.diverged or not math.isfinite(self.loss) else min(self.first_loss, self.loss)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Trial:
        """From a job's result, where None stands for nan."""
        known: dict[str, Any] = {key: math.nan if value is None else value for key, value in data.items()}
        return cls(**known)


def run_one(
    job: JobContext, problem: str, solver: str, lr: float, seed: int, steps: int, batch: int, schedule: str
) -> dict[str, Any]:
    """One run, as a job; the fields of a `Trial`."""
    settings = {"problem": problem, "solver": solver, "lr": lr, "seed": seed, "steps": steps, "batch": batch}
    # "job" is the problem here: with the job's own name in it no two configs would be alike, and no runs a group
    with job.trace(**settings, schedule=schedule, job=problem) as trace:
        made = build_seeded(problem, job.seed)
        trace.declare("loss", _LOSS)
        trace.declare("whole", _WHOLE)

        def on_step(step: int, loss: float) -> None:
            trace.record("loss", step, value=loss)
            job.progress(step + 1, steps)

        def on_look(step: int, loss: float, test_loss: float) -> None:
            trace.record("whole", step, loss=loss, test_loss=test_loss)

        row = descend(made, solver, lr, seed, steps, batch, schedule, order=job.seed, on_step=on_step, on_look=on_look)
    return finite(dataclasses.asdict(row))


def build_seeded(problem: str, seed: int) -> TrainingTask:
    """The problem with the weights that the seed draws; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return problems.build(problem)


def _ignore(*_: float) -> None:
    """No listener."""


def descend(
    problem: TrainingTask,
    solver: str,
    lr: float,
    seed: int,
    steps: int,
    batch: int,
    schedule: str = "constant",
    *,
    order: int = 0,
    looks: int = LOOKS,
    on_step: Callable[[int, float], None] = _ignore,
    on_look: Callable[[int, float, float], None] = _ignore,
) -> Trial:
    """Train the problem's model from where it stands; what came of it.

    Args:
        problem, solver, lr, steps, batch, schedule: as in `Sweep`.
        seed: which repetition the row is.
        order: seed of the order of the data.
        looks: how often the whole data are looked at after the start, evenly spaced.
        on_step: is told (step, loss of its mini-batch).
        on_look: is told (steps made, loss over the training data, over the test data).
    """
    objective, test = problem.objective, problem.test
    optimizer = solvers.make(solver, objective.leaves(), lr)
    losses: list[float] = []
    seen: list[tuple[float, float, float, float]] = []  # loss, accuracy, and both on the test data

    def look() -> None:
        seen.append((*evaluate(objective), *(evaluate(test) if test else (math.nan, math.nan))))
        on_look(len(losses), seen[-1][0], seen[-1][2])

    look()
    start = time.perf_counter()
    for step, pair in enumerate(problem.draws(batch, steps, order)):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor(schedule, step, steps)
        loss = _step(optimizer, problem, pair)
        losses.append(loss)
        on_step(step, loss)
        if not math.isfinite(loss):
            break
        if (step + 1) % max(steps // looks, 1) == 0 or step + 1 == steps:
            look()
    seconds = time.perf_counter() - start
    first, best = seen[0][0], float(np.nanmin([loss for loss, *_ in seen]))
    finite = math.isfinite(losses[-1]) and math.isfinite(seen[-1][0])
    last, accuracy, test_loss, test_accuracy = seen[-1] if finite else (math.nan,) * 4
    ended = not last <= first, len(losses), seconds
    return Trial(solver, lr, seed, first, last, best, accuracy, test_loss, test_accuracy, *ended)


def _step(optimizer: torch.optim.Optimizer, problem: TrainingTask, pair: Any) -> float:
    """Make a step unless the loss is not finite; the loss where it began."""

    def closure() -> Tensor:
        loss = problem.loss(pair)
        if not bool(torch.isfinite(loss).all()):
            raise _NotFinite(loss)
        return loss

    try:
        return solvers.step(optimizer, closure)
    except _NotFinite as error:
        return float(error.args[0].detach())
    except ValueError:
        if _finite_norms(problem, pair):
            raise
        return math.nan  # a solver that refuses such gradients has diverged like any other


def _finite_norms(problem: TrainingTask, pair: Any) -> bool:
    pieces = torch.autograd.grad(problem.loss(pair), problem.objective.leaves(), allow_unused=True)
    return all(bool(torch.isfinite(g.square().sum())) for g in pieces if g is not None)


class _NotFinite(Exception):
    """The loss of a mini-batch is nan or infinite."""


def factor(schedule: str, step: int, steps: int) -> float:
    """What lr is multiplied by at step 0, 1, ..."""
    if schedule == "sqrt":
        return 1 / math.sqrt(step + 1)
    return 0.5 * (1 + math.cos(math.pi * step / steps)) if schedule == "cosine" else 1.0
