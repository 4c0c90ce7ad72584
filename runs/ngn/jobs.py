"""The jobs of `runs.ngn` on networks: one solver on one network, over a grid of step sizes, from several seeds.

Step sizes of the solvers that move along the gradient (or its running mean) are 1e-2 ... 1e2, of those with a
preconditioner 1e-4 ... 1, nine each, half a decade apart. A trace has a row for each run, with the loss of each
step's batch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from probes.numbers import finite
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import build
from probes.sweep.training import Descent
from probes.trace.layout import Field
from runs.ngn import toys
from runs.sweep import problems, solvers

PLAIN = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-4, 5))
SCALED = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-8, 1))
SEEDS = 3
MOMENTUM = ("sgd-m", "momo", "ngn-m")  # compared with one another; the last is the family's own
ADAPTIVE = ("adam", "momo-adam", "ngn-md1")
DECAY = {"ngn-md1-dec": "ngn-md1:weight_decay=0.1", "ngn-md1-w": "ngn-md1:weight_decay=0.1,decay=w"}
NETWORKS: dict[str, tuple[str, int, int, tuple[str, ...]]] = {  # problem, batch, steps, solvers
    "mlp": ("digits-mlp", 64, 200, (*MOMENTUM, "sps", "ngn", "ngn-d", *ADAPTIVE, "ngn-md2")),
    "cnn": ("digits-cnn", 32, 150, (*MOMENTUM, "sps", "ngn", *ADAPTIVE, "ngn-md2")),
    "vit": ("digits-vit", 32, 120, (*MOMENTUM, *ADAPTIVE)),
    "text": ("text-transformer", 4, 120, (*MOMENTUM, *ADAPTIVE, *DECAY)),
}
IMAGES = ("mlp", "cnn", "vit")


def grid(solver: str) -> tuple[float, ...]:
    """The step sizes of a solver."""
    return SCALED if solver.startswith(("adam", "momo-adam", "ngn-md")) else PLAIN


def plan(quick: bool) -> list[Job]:
    """All jobs, the long ones first."""
    jobs = []
    for network in ("text", "vit", "cnn", "mlp"):
        problem, batch, steps, solvers = NETWORKS[network]
        for solver in solvers:
            lrs, seeds = (grid(solver)[::4], 1) if quick else (grid(solver), SEEDS)
            settings: dict[str, Any] = {"problem": problem, "solver": DECAY.get(solver, solver), "lrs": list(lrs)}
            settings |= {"seeds": seeds, "steps": 10 if quick else steps, "batch": batch}
            jobs.append(Job(f"{network}-{solver}", sensitivity, settings, network))
    return jobs + toys.plan(quick)


def sensitivity(
    job: JobContext, problem: str, solver: str, lrs: list[float], seeds: int, steps: int, batch: int
) -> dict[str, Any]:
    """A run at each step size from each seed; the rows of a sweep."""
    rows = []
    fields = {
        "lr": Field((), "float64", "", "step size"),
        "seed": Field((), "int64", "", "which repetition"),
        "loss": Field((steps,), "float64", "loss", "of each step's mini-batch; nan from where it is not finite"),
        "first": Field((), "float64", "loss", "over the training data at the start"),
        "last": Field((), "float64", "loss", "over the training data at the end; nan where it is not finite"),
    }
    with job.trace(problem=problem, solver=solver, steps=steps, batch=batch) as trace:
        trace.declare("runs", fields)
        for run, (lr, seed) in enumerate((lr, seed) for lr in lrs for seed in range(seeds)):
            losses = [math.nan] * steps
            start = (job.seed + seed) % 2**63
            made = build(problems.spec(problem), start)
            descent = Descent(made, solvers.spec(solver), lr, steps, batch, order=start, looks=1)
            descent.on_step = losses.__setitem__
            descent.run()
            row = descent.trial(solver, seed)
            trace.record("runs", run, lr=lr, seed=seed, loss=losses, first=row.first_loss, last=row.loss)
            job.progress(run + 1, len(lrs) * seeds)
            rows.append(finite(dataclasses.asdict(row)))
    return {"problem": problem, "rows": rows}
