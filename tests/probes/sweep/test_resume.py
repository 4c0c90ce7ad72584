"""Runs that are interrupted after every step, and what is found in their places: the numbers of one that is not."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sweep_cases import PROBLEM

from probes import Field, Trace
from probes.errors import UserError
from probes.sweep.checkpoint import Checkpoint
from probes.sweep.jobs import Job, JobContext
from probes.sweep.runner import Runner
from probes.sweep.sweep import Sweep
from probes.trace.lock import WriterLock

SOLVERS = (
    "torch.optim:SGD:momentum=0.9",
    "torch.optim:Adam",
    "solvers:NGN:momentum=0.9,variant=md1",
    "solvers:MoMoAdam",
    "solvers:SAM:momentum=0.9",
    "solvers:Scion",
    "solvers:Signum",
)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "own.py").write_text(PROBLEM)
    return Sweep(f"{tmp_path / 'own.py'}:problem", SOLVERS, (0.05,), seeds=1, steps=5, batch=8, schedule="cosine")


def rows(path: Path) -> dict[str, list[Any]]:
    with Trace.open(path) as trace:
        loss, whole = trace["loss"], trace["whole"]
        return {
            "loss": loss["value"].tolist(),
            "at": loss.read()["step"].tolist(),
            "whole": whole["loss"].tolist(),
            "test": whole["test_loss"].tolist(),
            "looks": whole.read()["step"].tolist(),
        }


def test_a_run_stopped_after_every_step_is_the_run(sweep: Sweep, tmp_path: Path) -> None:
    """Weights, buffers, solver, dropout's random states and the order of the data go on; bit by bit."""
    jobs = sweep.jobs()
    whole = Runner(tmp_path / "whole", 0).run(jobs)
    stopped = Runner(tmp_path / "stopped", 0)
    for tries in range(1, 6):
        found = stopped.run(jobs, limit=0.0)
        assert len(found) == (len(jobs) if tries == 5 else 0)
        if tries < 5:
            assert {outcome.share for outcome in stopped.paused.values()} == {tries / 5}
    for job in jobs:
        one, other = whole[job.name], stopped.run(jobs)[job.name]
        assert other.error is None
        assert {**other.data, "seconds": 0} == {**one.data, "seconds": 0}
        assert rows(other.trace) == rows(one.trace)
    assert not list((tmp_path / "stopped").glob("*.pt"))


def test_what_does_not_fit_is_begun_anew(sweep: Sweep, tmp_path: Path) -> None:
    job = sweep.jobs()[0]
    expected = Runner(tmp_path / "whole", 0).run([job])[job.name]
    for spoil in ("damage", "another's", "no trace", "another trace"):
        runner = Runner(tmp_path / spoil.replace(" ", "-"), 0)
        runner.run([job], limit=0.0)
        work = runner.work(job)
        state = work.state.path
        assert state is not None
        if spoil == "damage":
            state.write_bytes(state.read_bytes()[:-900])
        elif spoil == "another's":
            kept = work.state.load()
            assert kept is not None
            Checkpoint(state, "another key").save(kept)
        else:
            work.trace.unlink()
            if spoil == "another trace":
                Trace.create(work.trace).close()
        found = runner.run([job])[job.name]
        assert {**found.data, "seconds": 0} == {**expected.data, "seconds": 0}
        assert rows(found.trace) == rows(expected.trace)


def test_states_are_kept_when_it_is_time_and_whole(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "a.pt", "key", seconds=0.0)
    assert kept.due()
    kept.save({"step": 3, "weights": torch.arange(3.0), "seen": [(1.0, 2.0)]})
    again = Checkpoint(tmp_path / "a.pt", "key")
    assert not again.due()
    state = again.load()
    assert state is not None
    assert state["weights"].tolist() == [0, 1, 2]
    assert again.spent() > 0
    assert Checkpoint(tmp_path / "a.pt", "other").load() is None
    assert Checkpoint().load() is None
    kept.save({"step": 4, "generator": (i for i in range(3))})  # cannot be pickled: checkpoints are given up
    assert not kept.due()
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def walk(job: JobContext, steps: int) -> list[int]:
    """A job that cannot go on from the middle."""
    with job.trace(steps=steps) as trace:
        trace.declare("walk", {"x": Field()})
        for step in range(steps):
            trace.record("walk", step, x=float(step))
            if step == 2 and not (job.path.parent / "tried").exists():
                (job.path.parent / "tried").touch()
                raise RuntimeError("stumbled")
    return list(range(steps))


def test_a_job_without_checkpoints_begins_anew(tmp_path: Path) -> None:
    job, runner = Job("walk", walk, {"steps": 5}), Runner(tmp_path, 0)
    failed = runner.run([job])["walk"]
    assert failed.error is not None
    assert failed.error.startswith("RuntimeError: stumbled (test_resume.py:")
    with Trace.open(failed.trace) as trace:
        assert len(trace["walk"]) == 3
    done = runner.run([job])["walk"]
    assert done.data == [0, 1, 2, 3, 4]
    with Trace.open(done.trace) as trace:
        np.testing.assert_array_equal(trace["walk"]["x"], range(5))


def test_results_stand_wherever_the_problem_lies_and_fall_with_its_file(tmp_path: Path) -> None:
    def run(place: str, text: str) -> Any:
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "own.py").write_text(text)
        (job,) = Sweep(f"{tmp_path / place / 'own.py'}:problem", SOLVERS[:1], (0.05,), seeds=1, steps=2).jobs()
        return Runner(tmp_path / "jobs", 0).run([job])[job.name]

    assert not run("a", PROBLEM).resumed
    assert run("b", PROBLEM).resumed
    assert not run("b", PROBLEM + "\nCHANGED = True").resumed


def test_a_run_that_somebody_else_is_at_is_waited_for(sweep: Sweep, tmp_path: Path) -> None:
    job = sweep.jobs()[0]
    runner = Runner(tmp_path / "jobs", 0)
    (tmp_path / "jobs").mkdir()
    lock = WriterLock(runner.work(job).result)
    with pytest.raises(UserError, match="is being made by this process: end that before --fresh"):
        runner.run([job], fresh=True)
    start = time.monotonic()
    threading.Timer(1.0, lock.release).start()
    assert runner.run([job])[job.name].error is None
    assert time.monotonic() - start > 1
