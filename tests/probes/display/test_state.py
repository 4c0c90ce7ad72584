"""How far, how long, how long yet: with a clock that the test turns."""

import pytest
import torch

from landscape.spectra import RunningEstimate
from probes.display.state import State
from probes.sweep.display import Bars
from probes.sweep.work import JobResult


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_line_says_what_how_far_the_estimate_and_the_time_left(clock):
    state = State(4, clock=clock)
    state.show("step 0 spectrum", 0)
    clock.now += 30
    assert state.line() == "step 0 spectrum: 0 of 4, 30 s"  # nothing is done yet: nothing is known of the rest
    callback = state.show("step 10 spectrum", 1)
    assert state.line() == "step 10 spectrum: 1 of 4, 30 s, about 90 s left"
    clock.now += 30
    callback(50, 100, RunningEstimate(12.3, 0.2, "lambda_1"))
    # one and a half in 60 s: two and a half are left
    told = "step 10 spectrum: 1 of 4, λ₁ = 12.3 ± 0.2, 50 of 100 products, 60 s, about 100 s left"
    assert state.line() == told


def test_time_passes_while_a_block_of_products_is_made(clock):
    state = State(1, clock=clock)
    callback = state.show("density", 0)
    clock.now += 10
    callback(64, 640, None)
    assert state.left == pytest.approx(90)
    clock.now += 5
    assert state.left == pytest.approx(85)
    clock.now += 15  # thrice as long as the first block: the second one ends now at best, and eight are left
    assert state.left == pytest.approx(30 * 8 / 2)


def test_a_part_that_takes_longer_than_all_before_it(clock):
    state = State(4, clock=clock)
    state.show("step 0 loss", 0)
    clock.now += 1
    state.show("step 0 gauss-newton", 1)  # which has no callback
    assert state.left == pytest.approx(3)
    clock.now += 9
    assert state.line() == "step 0 gauss-newton: 1 of 4, 10 s, about 10 s left"


def test_an_algorithm_alone_takes_at_most_what_it_may(clock):
    state = State(1, clock=clock)
    callback = state.show("eigsh", 0)
    clock.now += 5
    callback(50, 1000, RunningEstimate(2.0, 0.02, "lambda_1"))
    assert state.line() == "eigsh: λ₁ = 2.00 ± 0.02, 50 of 1000 products, 5 s, at most 95 s left"
    assert state.ended() == "eigsh: λ₁ = 2.00 ± 0.02, 50 products in 5.0 s"
    callback(250, 1000, torch.tensor([[1.0, float("nan")], [3.0, 2.0]]))  # points have no early end
    assert state.line() == "eigsh: from 1 to 3, 250 of 1000 points, 5 s, about 15 s left"


@pytest.mark.parametrize("planned", [None, 0])
def test_what_is_not_planned_has_no_end(clock, planned):
    state = State(1, clock=clock)
    callback = state.show("", 0)
    clock.now += 5
    callback(3, planned, 1.5)
    assert state.line() == "1.5, 3, 5 s"


def test_more_than_was_planned_is_all_of_it(clock):
    state = State(2, clock=clock)
    callback = state.show("x", 1)
    clock.now += 5
    callback(12, 10, None)
    assert (state.share, state.left) == (1.0, 0.0)


def test_jobs_side_by_side(clock, monkeypatch):
    bars = Bars(None, 10)
    bars.state._clock, bars.state._start = clock, clock.now
    for name in ("a", "b"):  # from an earlier sweep: no measure of time
        bars.tell(name, 1, 1, JobResult(None, name, resumed=True))
    assert bars.state.line() == "2 of 10 runs, 0 at work, 0 s"
    clock.now += 30
    bars.tell("c", 1, 1, JobResult(None, "c"))
    bars.tell("d", 25, 100)
    bars.tell("e", 75, 100)
    # two of the eight that are not from before
    assert bars.state.line() == "3 of 10 runs, 2 at work, 30 s, about 90 s left"
    bars.tell("d", 100, 100, JobResult(None, "d"))
    assert list(bars.state.doing) == ["e"]
    assert bars.state.count() == "4 of 10 runs"
