"""A checkpoint and its trace: what the trace held when the checkpoint was saved is on the disk, or its loss is said."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass

import pytest

from probes import Field, Monitor, ProbeWarning, Trace


class Objective:
    size = 4


@dataclass
class Count:
    """Records the step."""

    name: str = "count"
    every: int = 1
    needs = frozenset()

    def fields(self, context):
        return {"value": Field()}

    def measure(self, context):
        return {"value": float(context.step)}


def train(trace, steps, state=None):
    monitor = Monitor(Objective(), [Count(), Count("rare", 4)], trace)
    if state is not None:
        monitor.load_state_dict(state)
    for step in steps:
        monitor(step)
    return monitor


def test_the_state_is_saved_with_a_trace_that_survives_the_process(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = train(trace, range(10))
        state = json.loads(json.dumps(monitor.state_dict()))
        # what a killed process leaves: the file as the system has it, marked as open for writing
        shutil.copy(trace.path, tmp_path / "killed.h5")
    with Trace.resume(tmp_path / "killed.h5", step=9) as trace, warnings.catch_warnings():
        warnings.simplefilter("error")
        train(trace, range(10, 20), state)
    resumed = Trace.open(tmp_path / "killed.h5")
    assert resumed["count"]["step"].tolist() == list(range(20))
    assert resumed["rare"]["step"].tolist() == [0, 4, 8, 12, 16]
    assert len(resumed.events) == 0


def test_a_trace_behind_its_checkpoint_is_said(tmp_path):
    path = tmp_path / "run.h5"
    with Trace.create(path, seed=0) as trace:
        state = train(trace, range(10)).state_dict()
    with Trace.resume(path, step=7) as trace:  # as an older copy of the file would be
        expected = r"'count' is behind the checkpoint: it ends at step 7, 2 of the 10 records .* up to step 9 are lost"
        with pytest.warns(ProbeWarning, match=expected), pytest.warns(ProbeWarning, match="'rare' is behind"):
            train(trace, range(10, 12), state)
    trace = Trace.open(path)
    assert trace["count"]["step"].tolist() == [*range(8), 10, 11]
    assert trace.events["probe"].tolist() == ["count", "rare"]
    assert [reason[:24] for reason in trace.events["reason"]] == ["is behind the checkpoint"] * 2


def test_another_trace_and_an_old_state_are_gone_on_with_silently(tmp_path):
    with Trace.create(tmp_path / "a.h5", seed=0) as trace:
        state = train(trace, range(10)).state_dict()
    del (old := dict(state))["trace"]
    for name, known in (("b.h5", state), ("c.h5", old)):
        with Trace.create(tmp_path / name, seed=0) as trace, warnings.catch_warnings():
            warnings.simplefilter("error")
            train(trace, range(10, 12), known)
            assert trace["count"]["step"].tolist() == [10, 11]


def test_a_trace_that_cannot_be_flushed_does_not_stop_the_saving(tmp_path, monkeypatch):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = train(trace, range(3))

        def full():
            from probes import TraceError

            raise TraceError("cannot write: no space left")

        monkeypatch.setattr(trace, "flush", full)
        with pytest.warns(ProbeWarning, match="the trace is behind this checkpoint: cannot write"):
            state = monitor.state_dict()
        assert state["trace"] is None
        monkeypatch.undo()
    assert monitor.state_dict()["trace"]["rows"] == {"count": [3, 2], "rare": [1, 0]}  # closed, and whole
