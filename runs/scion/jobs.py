"""The jobs of `runs.scion`: one pass over Fashion-MNIST by batch size, constants along it, a known loss.

Every run of a seed starts from the same weights and sees the images in the same order, whatever its settings. Step
sizes are 2^-9 times powers of 1.5 for Scion, powers of 2 for other solvers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.scion import known, probing
from runs.scion.training import Setup, judged, train
from solvers.first_order.batch_rule import Settings

BUDGET = 60_000
FACTOR = 1.5  # of neighbouring step sizes
MIDDLE = 2.0**-9
# By batch size: the exponent in the middle of its step sizes, how many there are, seeds that try all of them, and all
# seeds, of which those left run at the best one.
BATCHES = {
    16: (-2, 3, 1, 3),
    32: (-1, 3, 1, 3),
    64: (0, 3, 1, 3),
    128: (1, 3, 2, 5),
    256: (2, 3, 2, 5),
    512: (3, 4, 2, 5),
    1024: (4, 3, 2, 5),
}
STEPS = 58  # as many as batches of 1024 leave: runs of equal length
LONG = (64, 128, 256, 512, 1024)
ADAM = -9  # log2 of the step size in the middle
DIGITS = 1344 / BUDGET  # share of the budgets in the reduced run


def plan(quick: bool) -> list[Job]:
    """All jobs, the long ones first; quick: on digits, few step sizes and seeds."""
    jobs = [_batch_job(batch, quick) for batch in BATCHES]
    along: dict[str, Any] = {"settings": vars(Settings(BUDGET, 64, MIDDLE)), "seeds": 3}
    along |= {"setup": {"data": "fashion"}, "images": 4096, "batch": 256}
    if quick:
        along |= {"settings": _reduced(along["settings"]) | {"batch": 16}, "seeds": 1}
        along |= {"setup": {"data": "digits"}, "images": 512, "batch": 64}
    jobs.append(Job("constants", probing.follow, along, "run"))
    jobs.append(_job("adam-64", _sizes(64, powers(ADAM, 5, 2.0)), 1, 5, quick, solver="adam"))
    for batch in LONG:
        jobs.append(_job(f"steps-{batch}", _sizes(batch, powers(4, 4, FACTOR, MIDDLE), STEPS * batch), 2, 3, quick))
    jobs.append(Job("softplus", known.measure, {"draws": 4 if quick else 20}))
    return jobs


def powers(middle: float, count: int, base: float, unit: float = 1.0) -> list[float]:
    """unit base^k for `count` exponents around the middle one."""
    first = middle - (count - 1) // 2
    return [float(f"{unit * base ** (first + k):.5g}") for k in range(count)]


def _batch_job(batch: int, quick: bool) -> Job:
    middle, count, tuning, seeds = BATCHES[batch]
    return _job(f"batch-{batch}", _sizes(batch, powers(middle, count, FACTOR, MIDDLE)), tuning, seeds, quick)


def _sizes(batch: int, lrs: Sequence[float], budget: float = BUDGET) -> list[dict[str, float]]:
    return [vars(Settings(budget, batch, lr)) for lr in lrs]


def _job(name: str, runs: list[dict[str, float]], tuning: int, seeds: int, quick: bool, **setup: Any) -> Job:
    if quick:
        runs, tuning, seeds = [_reduced(run) for run in runs[:: max(1, len(runs) // 2)]], 1, 2
    settings = {"runs": runs, "tuning": tuning, "seeds": seeds}
    return Job(name, scan, settings | {"setup": {"data": "digits" if quick else "fashion"} | setup}, "run")


def _reduced(run: dict[str, float]) -> dict[str, float]:
    budget = run["budget"] * DIGITS
    return run | {"budget": budget, "batch": min(run["batch"], budget // 2)}


def scan(
    job: JobContext, runs: list[dict[str, float]], tuning: int, seeds: int, setup: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each of `runs` (fields of `Settings`) from `tuning` seeds, the best of them from all; a row for each of `runs`.

    A row has its settings and lists over seeds: test losses (None where a run diverged) and shares of right answers.
    """
    made = Setup(**setup)
    rows: list[dict[str, Any]] = [run | {"loss": [], "accuracy": []} for run in runs]
    planned, done = len(runs) * tuning + seeds - tuning, 0
    with job.trace(**setup) as trace:
        trace.declare("runs", FIELDS)

        def try_(row: dict[str, Any], seed: int) -> None:
            nonlocal done
            settings = Settings(*(row[key] for key in ("budget", "batch", "lr", "momentum")))
            loss, accuracy = judged(made, train(made, [settings], job.seed + seed))
            row["loss"].append(loss)
            row["accuracy"].append(accuracy)
            known = {"seed": seed, "lr": settings.lr, "momentum": settings.momentum, "accuracy": accuracy}
            trace.record("runs", done, loss=math.nan if loss is None else loss, **known)
            done += 1
            job.progress(done, planned)

        for seed in range(tuning):
            for row in rows:
                try_(row, seed)
        best = min(rows, key=mean_loss)
        for seed in range(tuning, seeds):
            try_(best, seed)
    return rows


def mean_loss(row: dict[str, Any]) -> float:
    """Of a row's seeds; inf where a run diverged."""
    return math.inf if None in row["loss"] else statistics.fmean(row["loss"])


FIELDS = {
    "seed": Field((), "int64", "", "which repetition"),
    "lr": Field((), "float64", "", "step size, of the last stage"),
    "momentum": Field((), "float64", "", "share of the new gradient"),
    "loss": Field((), "float64", "loss", "mean over the test images at the end; nan where it is not finite"),
    "accuracy": Field((), "float64", "", "share of right answers on the test images"),
}
