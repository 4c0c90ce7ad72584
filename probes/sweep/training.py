"""One run of a sweep: a solver at one step size on one problem, and what came of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.numbers import finite
from probes.sweep import solvers
from probes.sweep.jobs import JobContext
from probes.sweep.problems import TrainingTask, build, evaluate
from probes.trace.layout import Field

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
    job: JobContext,
    problem: str,
    solver: str,
    spec: str,
    lr: float,
    seed: int,
    steps: int,
    batch: int,
    schedule: str,
    digest: str,
    where: str,
) -> dict[str, Any]:
    """One run, as a job; the fields of a `Trial`. It goes on from the checkpoint that an earlier try has left.

    `problem` and `solver` are names, `where` and `spec` say what they stand for; `digest` is of the problem's file.
    """
    settings = {"problem": problem, "solver": solver, "lr": lr, "seed": seed, "steps": steps, "batch": batch}
    # "job" is the problem here: with the job's own name in it no two configs would be alike, and no runs a group
    trace, state = job.resume(**settings, schedule=schedule, job=problem)
    with trace:
        trace.declare("loss", _LOSS)
        trace.declare("whole", _WHOLE)
        made = Descent(build(where, job.seed), spec, lr, steps, batch, schedule, order=job.seed)
        made.on_look = lambda step, loss, test_loss: trace.record("whole", step, loss=loss, test_loss=test_loss)

        def on_step(step: int, loss: float) -> None:
            trace.record("loss", step, value=loss)
            job.progress(step + 1, steps)
            job.keep(trace, step, steps, made.state)

        made.on_step = on_step
        made.run(state)
    return finite(dataclasses.asdict(made.trial(solver, seed)))


def _ignore(*_: float) -> None:
    """No listener."""


class Descent:
    """Training the problem's model from where it stands.

    Args:
        problem, lr, steps, batch, schedule: as in `Sweep`.
        spec: of the solver.
        order: seed of the order of the data.
        looks: how often the whole data are looked at after the start, evenly spaced.
        on_step: is told (step, loss of its mini-batch).
        on_look: is told (steps made, loss over the training data, over the test data).
    """

    def __init__(
        self,
        problem: TrainingTask,
        spec: str,
        lr: float,
        steps: int,
        batch: int,
        schedule: str = "constant",
        *,
        order: int = 0,
        looks: int = LOOKS,
        on_step: Callable[[int, float], None] = _ignore,
        on_look: Callable[[int, float, float], None] = _ignore,
    ) -> None:
        self.problem, self.lr, self.steps, self.batch, self.schedule = problem, lr, steps, batch, schedule
        self.order, self.looks, self.on_step, self.on_look = order, looks, on_step, on_look
        self.optimizer = solvers.make(spec, problem.objective.leaves(), lr, problem.objective)
        self.losses: list[float] = []
        self.seen: list[tuple[float, float, float, float]] = []  # loss, accuracy, and both on the test data
        self.seconds = 0.0

    def run(self, state: Mapping[str, Any] | None = None) -> None:
        """Make all steps, or those that come after the state of an earlier try."""
        draws = self.problem.draws(self.batch, self.steps, self.order)
        if state is None:
            self._look()
        else:
            next(islice(draws, len(state["losses"]) - 1, None))  # from the same random state as the first time
            self._restore(state)
            if not math.isfinite(self.losses[-1]):
                return
            self._look_if_due()
        before, start = self.seconds, time.perf_counter()
        for step in range(len(self.losses), self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * factor(self.schedule, step, self.steps)
            self.losses.append(_step(self.optimizer, self.problem, next(draws)))
            self.seconds = before + time.perf_counter() - start
            if not math.isfinite(self.losses[-1]):
                self.on_step(step, self.losses[-1])
                return
            self.on_step(step, self.losses[-1])  # before the look: what is kept here is what comes before it
            self._look_if_due()

    def advance(self, pair: Any) -> float:
        """One step on a mini-batch as the optimizer stands; the loss where it began. Nothing is looked at."""
        return _step(self.optimizer, self.problem, pair)

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on: weights and buffers, the solver, random states, what was seen."""
        objective = self.problem.objective
        return {
            "leaves": [p.detach() for p in objective.leaves()],
            "model": dict(objective.module.state_dict()),
            "solver": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            "losses": list(self.losses),
            "seen": list(self.seen),
            "seconds": self.seconds,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        objective = self.problem.objective
        objective.module.load_state_dict(state["model"])
        with torch.no_grad():
            for p, value in zip(objective.leaves(), state["leaves"], strict=True):
                p.copy_(value)
        self.optimizer.load_state_dict(state["solver"])
        torch.set_rng_state(state["random"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        self.losses, self.seconds = list(state["losses"]), float(state["seconds"])
        self.seen = [tuple(one) for one in state["seen"]]

    def trial(self, solver: str, seed: int) -> Trial:
        """What came of it."""
        first, best = self.seen[0][0], float(np.nanmin([loss for loss, *_ in self.seen]))
        finite = math.isfinite(self.losses[-1]) and math.isfinite(self.seen[-1][0])
        last, accuracy, test_loss, test_accuracy = self.seen[-1] if finite else (math.nan,) * 4
        ended = not last <= first, len(self.losses), self.seconds
        return Trial(solver, self.lr, seed, first, last, best, accuracy, test_loss, test_accuracy, *ended)

    def _look_if_due(self) -> None:
        made = len(self.losses)
        if made % max(self.steps // self.looks, 1) == 0 or made == self.steps:
            self._look()

    def _look(self) -> None:
        objective, test = self.problem.objective, self.problem.test
        self.seen.append((*evaluate(objective), *(evaluate(test) if test else (math.nan, math.nan))))
        self.on_look(len(self.losses), self.seen[-1][0], self.seen[-1][2])


def _step(optimizer: torch.optim.Optimizer, problem: TrainingTask, pair: Any) -> float:
    """Make a step unless the loss is not finite; the loss where it began."""

    def closure() -> Tensor:
        loss = problem.loss(pair)
        if not bool(torch.isfinite(loss).all()):
            raise _NotFinite(loss)
        return loss

    try:
        return solvers.step(optimizer, closure, pair)
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
