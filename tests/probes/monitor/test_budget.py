"""A monitor with a budget, in simulated time: the shares, windows, waiting and skipping are exact and take no time."""

import json
import random
import time

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from probes import Every, Field, Monitor, ProbeWarning, Spectrum, Trace
from probes.monitor import costs
from probes.monitor.budget import WINDOW, Budget


class Clock:
    """Stands in for `time.perf_counter`; `spent` lists (start, seconds) of what happened inside the monitor."""

    def __init__(self):
        self.now = 1000.0
        self.spent = []

    def __call__(self):
        return self.now

    def share(self, start, stop):
        begun, took = np.array(self.spent).T
        inside = np.minimum(begun + took, stop) - np.maximum(begun, start)
        return float(inside.clip(0).sum()) / (stop - start)


class Costly:
    """Takes seconds of simulated time; says beforehand how many when `known`."""

    needs = frozenset()

    def __init__(self, clock, name, seconds, every=1, spread=0.0):
        self.clock, self.name, self.seconds, self.every, self.spread = clock, name, seconds, Every(every), spread
        self.random = random.Random(name)

    def expected(self, context):
        return {"value": self.seconds / 0.002}

    def fields(self, context):
        return {"value": Field()}

    def measure(self, context):
        self.clock.now += self.seconds * (1 + self.spread * self.random.random())
        return {"value": 0.0}


class Model:
    """An objective with a forward pass of 2 ms."""

    size = 4

    def __init__(self, clock=None, seconds=0.002):
        self.clock, self.seconds = clock, seconds

    def value(self):
        self.clock.now += self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def train(clock, monitor, seconds, step_time=0.05, start=0):
    """Training steps of `step_time` with the monitor after each, which itself takes 20 microseconds."""
    began, step = clock.now, start
    while clock.now < began + seconds:
        clock.now += step_time
        entered = clock.now
        outcomes = monitor(step)
        clock.now += 2e-5
        clock.spent.append((entered, clock.now - entered))
        assert all(outcome.error is None for outcome in outcomes.values())
        step += 1
    return step


def worst_window(clock, length):
    ends = [t + s for t, s in clock.spent if t + s >= clock.spent[0][0] + length]
    return max((clock.share(end - length, end) for end in ends[:: max(1, len(ends) // 400)]), default=0.0)


MIXES = {
    "one cheap probe at every step": [("a", 0.004, 1, 0.0)],
    "one that takes a third of the budget": [("a", 1.0, 1000, 0.0)],
    "cheap and dear": [("a", 0.004, 1, 0.0), ("b", 6.0, 50, 0.0)],
    "four of all sizes with costs that vary": [
        ("a", 0.002, 1, 0.5),
        ("b", 0.1, 10, 0.5),
        ("c", 1.5, 100, 0.3),
        ("d", 9.0, 500, 0.3),
    ],
    "two dear ones": [("a", 8.0, 10, 0.1), ("b", 8.0, 10, 0.1)],
}


@pytest.mark.filterwarnings("ignore::probes.ProbeWarning")
@pytest.mark.parametrize("budget", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("mix", MIXES)
def test_shares(mix, budget, clock, tmp_path):
    """At most the budget plus 1 % over 5 minutes, at most twice the budget in every long window; nobody starves."""
    probes = [Costly(clock, *settings) for settings in MIXES[mix]]
    with Trace.create(tmp_path / "run.h5") as trace:
        monitor = Monitor(Model(clock), probes, trace, budget=budget)
        steps = train(clock, monitor, 300.0)
        total = clock.share(1000.0, 1300.0)
        assert total <= budget + 0.01
        window = max(WINDOW, max(p.seconds * (1 + p.spread) for p in probes) / budget)
        assert worst_window(clock, window) <= 2 * budget
        wanted = sum(p.seconds / p.every.steps / 0.05 for p in probes)
        earned = budget * 300.0
        for p in probes:
            # half of the income serves whoever waits longest, so n probes are served within 2 n c / budget
            turns = int(earned / (2 * len(probes) * p.seconds * (1 + p.spread)))
            assert len(trace[p.name]) >= min(turns, steps // p.every.steps - 1)
        if wanted < 0.5 * budget:
            assert all(len(trace[p.name]) >= 0.95 * steps / p.every.steps for p in probes)
        elif all(p.seconds < 0.1 * earned for p in probes):
            assert total >= 0.7 * min(budget, wanted)  # and the budget is used


def test_a_long_pause_does_not_bring_a_burst(clock, tmp_path):
    with Trace.create(tmp_path / "run.h5") as trace:
        monitor = Monitor(Model(clock), [Costly(clock, "a", 0.05)], trace, budget=0.05)
        steps = train(clock, monitor, 100.0)
        clock.now += 3600.0  # evaluation, say
        train(clock, monitor, 200.0, start=steps)
    assert worst_window(clock, WINDOW) <= 0.1


def test_every_due_step_is_measured_or_accounted_for(clock, tmp_path):
    """What is in the trace and what `/events` says was skipped make up all steps at which it was due."""
    with Trace.create(tmp_path / "run.h5") as trace:
        steps = train(clock, Monitor(Model(clock), [Costly(clock, "a", 0.3, 2)], trace, budget=0.05), 200.0)
    trace = Trace.open(tmp_path / "run.h5")
    reasons = [str(r) for r in trace.events["reason"]]
    assert reasons[0] == "waits: it takes about 300 ms, which the budget of 0.05 of the time allows once in 6 s"
    skipped = 0
    for reason in reasons[1:]:
        assert "measuring may take 0.05 of the time" in reason
        skipped += 1 if reason.startswith("skipped at step") else int(reason.split()[2])
    due = (steps + 1) // 2
    assert due - len(trace["a"]) - skipped in (0, 1)  # the last one may still be owed
    assert len(reasons) < 10  # rows once a minute, not one a step


def test_waiting_costs_little(clock, tmp_path, monkeypatch):
    """Putting off what does not fit must not use up what it waits for: no context is made then."""
    from probes.monitor import monitor as module

    made = []
    monkeypatch.setattr(module, "Context", lambda *args, real=module.Context, **kw: made.append(1) or real(*args, **kw))
    with Trace.create(tmp_path / "run.h5") as trace:
        probes = [Costly(clock, "a", 1.0), Costly(clock, "b", 2.0, 10)]
        monitor = Monitor(Model(clock), probes, trace, budget=0.05)
        steps = train(clock, monitor, 300.0, step_time=0.01)
        measured = len(trace["a"]) + len(trace["b"])
    assert measured >= 8
    assert len(made) <= measured + 3 < steps / 1000  # one when probes are declared, and for estimates


def test_a_cheap_one_is_measured_beside_a_dear_one_that_waits(clock, tmp_path):
    """With steps of 1 ms, asking takes 3 % of the time: what is left of 5 % serves both."""

    class Asked(Every):
        def due(self, now, before):
            clock.now += 1.5e-5
            return super().due(now, before)

    with Trace.create(tmp_path / "run.h5") as trace:
        cheap, dear = Costly(clock, "z", 0.1), Costly(clock, "a", 3.0)
        cheap.every, dear.every = Asked(10), Asked(200)
        train(clock, Monitor(Model(clock), [cheap, dear], trace, budget=0.05), 40.0, step_time=0.001)
        assert len(trace["z"]) >= 2
    assert clock.share(1000.0, 1040.0) <= 0.07


def test_one_that_never_fits_is_reported_once(clock, tmp_path):
    with Trace.create(tmp_path / "run.h5") as trace:
        dear = Costly(clock, "dear", 0.004)  # two passes
        monitor = Monitor(Model(clock, 15.0), [dear], trace, budget=0.01)
        with pytest.warns(ProbeWarning, match="takes about 30 s.*once in 50 min") as caught:
            train(clock, monitor, 1000.0)
        assert len(caught) == 1
        assert len(trace["dear"]) == 0  # one forward pass was timed, the probe never ran
        assert clock.share(1000.0, 2000.0) == pytest.approx(0.015, abs=1e-3)
        assert sum("waits" in str(reason) for reason in trace.events["reason"]) == 1


def test_the_first_cost_is_estimated_from_one_product(tmp_path, monkeypatch):
    def timed(run, context):
        run()
        return 0.001

    monkeypatch.setattr(costs, "_seconds_of", timed)  # a busy machine may take any time for a product
    torch.manual_seed(0)
    model = nn.Linear(20, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(64, 20), torch.randint(3, (64,))))
    probe = Spectrum(2)
    with Trace.create(tmp_path / "run.h5") as trace:
        monitor = Monitor(objective, [probe], trace, budget=0.5)
        assert monitor(0) == {}  # estimated, and not yet earned
        assert objective_products(monitor) == 1
        assert monitor._budget.cost_of("spectrum") == pytest.approx(0.001 * probe.pairs.products)
        while not len(trace["spectrum"]):
            monitor(1)
        assert monitor._budget.cost_of("spectrum") == trace["spectrum"]["cost"][0]  # from now on what it took


def objective_products(monitor):
    (A,) = monitor._session.operators.values()
    assert not A._kept  # nothing stays alive between training steps
    return A.matvecs


def test_the_state_goes_on_where_it_was(clock, tmp_path):
    """Half a run, its state through JSON, and the other half: as one run, with no record doubled or missing."""

    def run(path, cut):
        probes = [Costly(clock, "a", 0.3, 7), Costly(clock, "b", 0.002, 3)]
        trace = Trace.create(path, seed=0)
        monitor = Monitor(Model(clock), probes, trace, budget=0.05)
        for step in range(400):
            if step == cut:
                state = json.loads(json.dumps(monitor.state_dict()))
                trace.close()
                trace = Trace.resume(path, step=cut - 1)
                monitor = Monitor(Model(clock), probes, trace, budget=0.05)
                monitor.load_state_dict(state)
            clock.now += 0.05
            monitor(step)
            clock.now += 2e-5
        trace.close()
        return {name: Trace.open(path)[name]["step"].tolist() for name in "ab"}

    whole, resumed = run(tmp_path / "whole.h5", -1), run(tmp_path / "resumed.h5", 200)
    for name in "ab":
        assert len(set(resumed[name])) == len(resumed[name])
        assert abs(len(whole[name]) - len(resumed[name])) <= 1
        assert [s for s in whole[name] if s < 200] == [s for s in resumed[name] if s < 200]


def test_a_debt_is_earned_back_first():
    budget = Budget(0.1)
    budget.advance(0.0)
    budget.advance(10.0)
    assert budget.credit == pytest.approx(1.0)
    budget.note_measurement("a", 0.5, 0, True)
    assert budget.fits("a", 0.0)
    budget.spend(21.0)
    for now, credit, fits in ((110.0, -10.0, False), (209.0, -0.1, False), (214.0, 0.4, False), (216.0, 0.6, True)):
        budget.advance(now)
        assert budget.credit == pytest.approx(credit)
        assert budget.fits("a", 0.0) == fits


def test_the_dearest_of_the_last_five_is_expected():
    budget = Budget(0.1)
    budget.expect("a", 9.0)
    expected = []
    for cost in (1.0, 5.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        budget.note_measurement("a", cost, 0, True)
        expected.append(budget.cost_of("a"))
    assert expected == [1, 5, 5, 5, 5, 5, 2, 2, 1]


def test_credit_and_savings_come_back_with_the_state():
    budget = Budget(0.1)
    budget.expect("a", 9.0)
    budget.advance(0.0)
    budget.wait("a", 3, True)
    budget.advance(20.0)
    budget.spend(0.5)
    assert (budget.credit, budget.saved) == (pytest.approx(1.5), pytest.approx(1.0))
    other = Budget(0.1)
    other.load_state_dict(json.loads(json.dumps(budget.state_dict())))
    assert (other.credit, other.saved) == (budget.credit, budget.saved)
    assert other.owes("a")


def test_other_states_are_refused(tmp_path):
    with Trace.create(tmp_path / "run.h5") as trace:
        monitor = Monitor(Model(), [], trace, budget=0.05)
        for state in ({}, {"version": 2}, 3):
            with pytest.raises(ValueError, match="state of a Monitor"):
                monitor.load_state_dict(state)


@pytest.mark.slow
def test_shares_in_real_time(tmp_path):
    """Five minutes of training the digits MLP: products, disk and the monitor's own time included."""
    torch.manual_seed(0)
    X, y = torch.randn(512, 64), torch.randint(10, (512,))
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    spent, budget = [], 0.05
    with Trace.create(tmp_path / "run.h5") as trace:
        from probes import CurvatureTrace, SpectralDensity

        probes = [Spectrum(5, every=10), CurvatureTrace(every=50), SpectralDensity(every=200)]
        monitor = Monitor(objective, probes, trace, budget=budget)
        start, step = time.perf_counter(), 0
        while time.perf_counter() - start < 300:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), y).backward()
            optimizer.step()
            entered = time.perf_counter()
            monitor(step)
            spent.append((entered, time.perf_counter() - entered))
            step += 1
        elapsed = time.perf_counter() - start
        assert sum(s for _, s in spent) / elapsed <= budget + 0.01
        for begin in range(0, 241, 10):
            inside = sum(s for t, s in spent if start + begin <= t < start + begin + 60)
            assert inside / 60 <= 2 * budget
        assert all(len(trace[p.name]) > 0 for p in probes)
