"""Monitor: what is due is measured and recorded; what fails is noted and the training goes on."""

import time
import warnings
from dataclasses import dataclass, field

import pytest
import torch

from probes import Field, Monitor, Probe, ProbeWarning, Trace, TraceError, measure_once
from probes.seeds import derive_seed


class Objective:
    size = 4


@dataclass
class Draw:
    """Records a random number of its generator, and what it was called with."""

    name: str = "draw"
    every: object = 1
    seconds: float = 0.0
    fails: tuple = ()
    seen: list = field(default_factory=list)
    needs = frozenset()

    def settings(self):
        return {"seconds": self.seconds}

    def fields(self, context):
        return {"value": Field(), "size": Field((), "int64")}

    def measure(self, context):
        self.seen.append(context)
        if self.seconds:
            time.sleep(self.seconds)
        if context.step in self.fails:
            raise RuntimeError("no derivative\nfor this kernel")
        return {"value": torch.rand((), generator=context.generator), "size": context.objective.size}


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=3) as trace:
        yield trace


def test_due_probes_are_measured_with_all_that_is_known(trace):
    often, seldom = Draw("often"), Draw("seldom", every=4)
    assert isinstance(often, Probe)
    optimizer = object()
    monitor = Monitor(Objective(), [often, seldom], trace, optimizer=optimizer)
    assert list(trace) == ["often", "seldom"]  # declared before the first step
    for step in range(9):
        outcomes = monitor(step, loss=torch.tensor(step / 2, requires_grad=True), batch="batch", epoch=step / 3)
        assert set(outcomes) == ({"often", "seldom"} if step % 4 == 0 else {"often"})
    assert trace["often"]["step"].tolist() == list(range(9))
    assert trace["seldom"]["step"].tolist() == [0, 4, 8]
    assert trace["seldom"]["epoch"][1] == 4 / 3
    assert (trace["seldom"]["cost"] > 0).all()
    context = seldom.seen[1]
    assert (context.step, context.loss, context.batch, context.optimizer) == (4, 2.0, "batch", optimizer)
    assert context.epoch == 4 / 3


def test_results_do_not_depend_on_history(trace, tmp_path):
    monitor = Monitor(Objective(), [Draw("a"), Draw("b")], trace)
    for step in range(6):
        monitor(step)
    with Trace.create(tmp_path / "other.h5", seed=3) as other:
        measure_once(Objective(), [Draw("b")], other, 4)
        assert other["b"]["value"][0] == trace["b"]["value"][4]
    with Trace.create(tmp_path / "seed.h5", seed=4) as other:
        measure_once(Objective(), [Draw("b")], other, 4)
        assert other["b"]["value"][0] != trace["b"]["value"][4]
    values = {*trace["a"]["value"], *trace["b"]["value"]}
    assert len(values) == 12
    # the file keeps the seed, so the derivation is part of the format
    assert derive_seed(0, "spectrum", 0) == 7891268719467438633


def test_the_global_random_state_is_left_alone(trace):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Monitor(Objective(), [Draw()], trace)(0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_failing_probe_is_recorded_and_the_others_go_on(trace):
    bad, good = Draw("bad", fails=(1, 2)), Draw("good")
    monitor = Monitor(Objective(), [bad, good], trace)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(4):
            outcomes = monitor(step, epoch=0.5)
            assert (outcomes["bad"].error is not None) == (step in (1, 2))
    assert [w.category for w in caught] == [ProbeWarning]  # the same failure again is a row, not a warning
    assert "probe 'bad' failed at step 1: RuntimeError: no derivative for this kernel" in str(caught[0].message)
    assert trace["bad"]["step"].tolist() == [0, 3]
    assert trace["good"]["step"].tolist() == [0, 1, 2, 3]
    assert trace.events["step"].tolist() == [1, 2]
    assert trace.events["probe"].tolist() == ["bad", "bad"]
    assert trace.events["epoch"].tolist() == [0.5, 0.5]


def test_a_result_that_does_not_fit_its_fields_is_a_failure_too(trace):
    class Wrong(Draw):
        def measure(self, context):
            return {"value": [1, 2], "size": 1}

    with pytest.warns(ProbeWarning, match="wrong: value has shape"):
        outcome = Monitor(Objective(), [Wrong("wrong")], trace)(0)["wrong"]
    assert "has shape" in outcome.error
    assert trace.events["reason"][0] == outcome.error


def test_errors_can_be_raised_and_ctrl_c_always_is(trace):
    monitor = Monitor(Objective(), [Draw(fails=(0,))], trace, on_error="raise")
    with pytest.raises(RuntimeError, match="no derivative"):
        monitor(0)

    class Interrupted(Draw):
        def measure(self, context):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Monitor(Objective(), [Interrupted("other")], trace)(0)
    assert len(trace.events) == 0


def test_a_trace_that_cannot_be_written_warns_once(tmp_path):
    trace = Trace.create(tmp_path / "run.h5")
    monitor = Monitor(Objective(), [Draw("a"), Draw("b")], trace)
    trace.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            outcomes = monitor(step)
    assert ["is closed" in str(w.message) for w in caught] == [True]
    assert outcomes["a"].values is not None  # measured, not written
    strict = Monitor(Objective(), [], trace, on_error="raise")
    assert strict(0) == {}
    with pytest.raises(TraceError, match="closed"):
        measure_once(Objective(), [Draw("a")], trace, 0, on_error="raise")


def test_one_name_for_two_things_is_refused_and_both_are_shown(trace):
    with pytest.raises(ValueError, match=r"seconds=0.0.*seconds=1.0"):
        Monitor(Objective(), [Draw(), Draw(seconds=1.0)], trace)
    Monitor(Objective(), [Draw()], trace)
    with pytest.raises(ValueError, match=r"other settings: seconds=0.0, now seconds=1.0"):
        Monitor(Objective(), [Draw(seconds=1.0)], trace)
    Monitor(Objective(), [Draw(every=7)], trace)  # when it is measured may change


def test_measure_once_needs_no_loop(trace):
    outcomes = measure_once(Objective(), [Draw("a", every=100), Draw("b")], trace, 7, epoch=1.0)
    assert sorted(outcomes) == ["a", "b"]
    assert outcomes["a"].values["size"] == 4
    assert trace["a"].row()["step"] == 7
    with pytest.warns(ProbeWarning, match="failed at step 0"):
        measure_once(Objective(), [Draw("a", fails=(0,))], trace, 0)


def test_a_schedule_of_ones_own(trace):
    class Once:
        def due(self, now, before):
            return now.step == 3

    monitor = Monitor(Objective(), [Draw(every=Once())], trace)
    for step in range(6):
        monitor(step)
    assert trace["draw"]["step"].tolist() == [3]


def test_bad_options(trace):
    for budget in (0, 1, -0.1, 5):
        with pytest.raises(ValueError, match="budget"):
            Monitor(Objective(), [], trace, budget=budget)
    with pytest.raises(ValueError, match="on_error"):
        Monitor(Objective(), [], trace, on_error="ignore")
    with pytest.raises(ValueError, match="on_error"):
        measure_once(Objective(), [], trace, 0, on_error="ignore")


def test_warnings_as_errors_do_not_lose_the_event(trace):
    monitor = Monitor(Objective(), [Draw(fails=(0,))], trace)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ProbeWarning):
            monitor(0)
    assert len(trace.events) == 1
