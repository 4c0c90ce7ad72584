"""A small experiment for the tests of runs.engine: three jobs that write traces, one that may fail or die."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.engine.claims import Control, Results, Verdict, claim
from runs.engine.experiment import Experiment, main


def walk(job: JobContext, steps: int, pause: float = 0.0) -> dict[str, float]:
    """A random walk from the job's seed and one from the global generator."""
    generator = torch.Generator().manual_seed(job.seed)
    position = 0.0
    with job.trace(steps=steps) as trace:
        trace.declare("walk", {"position": Field((), "float64", "", "of the walker")})
        for step in range(steps):
            position += float(torch.randn((), generator=generator))
            trace.record("walk", step, position=position)
            job.progress(step + 1, steps)
            time.sleep(pause)
    with (job.path.parent / "log").open("a") as log:
        log.write(f"{job.name}\n")
    product = torch.randn(200, 200) @ torch.randn(200, 200)
    return {"end": position, "seed": job.seed, "sum": float(product.sum()), "threads": torch.get_num_threads()}


def fail(job: JobContext, how: str) -> None:
    """An error, or a sudden death."""
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"{how} went wrong")


ASTRAY = Control("the walker lost", lambda judge, results: judge(results, beyond=np.inf))


@claim(
    "walks end somewhere",
    source="text",
    literature="folklore",
    criterion="all ends are finite",
    needs="walk-*",
    quick=True,
    control=ASTRAY,
)
def ends(results: Results, beyond: float = 0.0) -> Verdict:
    """A claim that holds."""
    found = [data["end"] + beyond for data in results.data("walk-*").values()]
    return Verdict(bool(np.isfinite(found).all()), f"{len(found)} ends", {"ends": found})


@claim("walks end at | 7", source="own", literature="none", criterion="an end is 7 [units]", needs=["walk-*"])
def seven(results: Results) -> Verdict:
    """A claim that does not."""
    positions = [float(results.trace(name)["walk"]["position"][-1]) for name in results.data("walk-*")]
    assert positions == [data["end"] for data in results.data("walk-*").values()]
    return Verdict(7.0 in positions, f"nearest {min(positions, key=lambda p: abs(p - 7)):.2f}")


def experiment(steps: int = 5, pause: float = 0.0, broken: str = "") -> Experiment:
    """Three walks, the last two from one stream, and perhaps a job that fails."""

    def plan(quick: bool) -> list[Job]:
        several = [Job(f"walk-{i}", walk, {"steps": 2 if quick else steps + i, "pause": pause}) for i in range(2)]
        several.append(Job("walk-twin", walk, {"steps": several[1].settings["steps"], "pause": pause}, "walk-1"))
        return ([Job("broken", fail, {"how": broken})] if broken else []) + several

    def needing(results: Results) -> Verdict:
        return Verdict(True, "")

    broken_claim = claim("nothing breaks", source="own", literature="", criterion="it runs", needs="broken")(needing)
    return Experiment("toy", "A toy.\n\nMore of it.", plan, (ends, seven, *([broken_claim] if broken else [])))


if __name__ == "__main__":
    folder, pause, *words = sys.argv[1:]
    main(experiment(pause=float(pause)), ["--out", str(Path(folder)), *words])
