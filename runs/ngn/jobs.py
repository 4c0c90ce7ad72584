"""The jobs of `runs.ngn` on networks: one solver on one network from one seed, at each step size of its grid.

Powers of 10, constant, no weight decay but where it is named; SGDM has dampening 0.9. A trace has a row for each run:
the loss of each step's batch, and the step as a share of the largest one, gamma_k / c or tau_k / alpha_0.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probes.numbers import finite
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import build
from probes.sweep.training import Descent
from probes.trace.layout import Field
from runs.ngn import bounds, toys
from runs.sweep import solvers

SEEDS = 3  # as in the paper
MOMENTUM = ("sgd-m", "momo", "ngn-m")  # compared with one another; the last is the family's own
ADAPTIVE = ("adam", "momo-adam", "ngn-md1")
BETAS = {"adam": "betas=(0.9,0.95)", "momo-adam": "betas=(0.9,0.95)", "ngn-md1": "beta2=0.95"}  # of language models
FORMS = ("dec", "w")
DECAYS = (1e-3, 1e-2)


@dataclass(frozen=True)
class Workload:
    """A network to train: a function of `workloads`, with the powers of 10 of both families' step sizes."""

    problem: str
    batch: int
    steps: int
    solvers: tuple[str, ...]
    momentum: range
    adaptive: range
    seeds: int = SEEDS

    @property
    def repeats(self) -> str:
        """How many seeds, in words."""
        return "one seed" if self.seeds == 1 else f"{self.seeds} seeds"

    def grid(self, solver: str) -> list[float]:
        """The step sizes of a solver."""
        scaled = solver.startswith(("adam", "momo-adam", "ngn-md"))
        return [10.0**k for k in (self.adaptive if scaled else self.momentum)]


NETWORKS = {
    "fashion": Workload("fashion_mlp", 128, 4680, (*MOMENTUM, *ADAPTIVE, "ngn-md2"), range(-2, 4), range(-4, 2)),
    "mnist": Workload("mnist_mlp", 128, 1240, MOMENTUM, range(-2, 4), range(-4, 2)),
    "text": Workload("english_transformer", 16, 300, (*MOMENTUM, *ADAPTIVE), range(-1, 4), range(-3, 2)),
}
DECAYED = (1e-2, 1e-1)  # step sizes of the runs with weight decay, on text


def plan(quick: bool) -> list[Job]:
    """All jobs."""
    jobs = []
    for network, load in NETWORKS.items():
        for seed, solver in itertools.product(range(1 if quick else load.seeds), load.solvers):
            betas = BETAS.get(solver) if network == "text" else None
            jobs.append(_job(network, solver, f"{solver}:{betas}" if betas else solver, seed, quick))
    numbers = range(1 if quick else NETWORKS["text"].seeds)
    for seed, form, decay in itertools.product(numbers, FORMS, DECAYS):
        spec = f"ngn-md1:{BETAS['ngn-md1']},weight_decay={decay:g},decay={form}"
        jobs.append(_job("text", f"ngn-md1-{form}-{decay:g}", spec, seed, quick, DECAYED))
    return [*jobs, *bounds.plan(quick), *toys.plan(quick)]


def _job(network: str, name: str, spec: str, seed: int, quick: bool, lrs: Sequence[float] = ()) -> Job:
    load = NETWORKS[network]
    settings: dict[str, Any] = {"problem": load.problem, "solver": spec, "number": seed}
    settings["lrs"] = list(lrs or load.grid(name))
    settings |= {"steps": load.steps, "batch": load.batch}
    if quick:  # the digits in place of all data
        settings |= {"problem": "digits_mlp", "steps": 10, "batch": 64}
    return Job(f"{network}-{name}-{seed}", train, settings, network)


def train(
    job: JobContext, problem: str, solver: str, lrs: list[float], number: int, steps: int, batch: int
) -> dict[str, Any]:
    """A run at each step size; rows with what was tested at both ends, and how large the steps were."""
    rows = []
    fields = {
        "lr": Field((), "float64", "", "step size"),
        "loss": Field((steps,), "float32", "loss", "of each step's mini-batch; nan from where it is not finite"),
        "share": Field((steps,), "float32", "", "the step over the largest one; nan for a rule without"),
    }
    with job.trace(problem=problem, solver=solver, steps=steps, batch=batch) as trace:
        trace.declare("runs", fields)
        for run, lr in enumerate(lrs):
            start = (job.seed + number) % 2**63
            made = build(f"runs.ngn.workloads:{problem}", start)
            descent = Descent(made, solvers.spec(solver), lr, steps, batch, order=start, looks=1)
            losses, shares = np.full(steps, np.nan, np.float32), np.full(steps, np.nan, np.float32)

            def on_step(step: int, loss: float, descent: Descent = descent, to: Any = (losses, shares)) -> None:
                last = getattr(descent.optimizer, "last", None)
                to[0][step], to[1][step] = loss, math.nan if last is None else last.shrink

            descent.on_step = on_step
            with flushed():
                descent.run()
            trace.record("runs", run, lr=lr, loss=losses, share=shares)
            job.progress(run + 1, len(lrs))
            first = dict(zip(("first_test_loss", "first_test_accuracy"), descent.seen[0][2:], strict=True))
            row = dataclasses.asdict(descent.trial(solver, number)) | first | {"share": shares_of(shares)}
            rows.append(finite(row | {"metric": effective(descent.optimizer, lr)}))
    return {"problem": problem, "rows": rows}


@contextmanager
def flushed() -> Iterator[None]:
    """Numbers below 1e-38 are 0: momentum of units that answer to no image becomes as small, and slow to compute."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def shares_of(shares: np.ndarray) -> dict[str, Any] | None:
    """How often the step is the largest one or at least 0.9 of it, its largest share, and means over tenths of the run.

    None for a rule without, and for a run that was lost.
    """
    if not np.isfinite(shares).all():
        return None
    tenths = [float(part.mean()) for part in np.array_split(shares.astype(np.float64), 10)]
    near, capped = (float((shares >= least).mean()) for least in (0.9, 1.0))
    return {"capped": capped, "near": near, "largest": float(shares.max()), "tenths": tenths}


def effective(optimizer: torch.optim.Optimizer, lr: float) -> list[float] | None:
    """Of each weight matrix the median over its entries of step / D_j at the end; None for a rule without D."""
    last = getattr(optimizer, "last", None)
    step = lr * (1.0 if last is None else last.shrink)
    found = []
    for group in optimizer.param_groups:
        beta2 = group["beta2"] if "beta2" in group else group.get("betas", (0.0, 0.0))[1]
        for p in group["params"]:
            state = optimizer.state[p]
            square = state.get("square", state.get("exp_avg_sq"))
            if p.ndim > 1 and square is not None:
                root = (square / (1 - beta2 ** float(state["step"]))).sqrt() + group["eps"]
                found.append(float((step / root).median()))
    return found or None
