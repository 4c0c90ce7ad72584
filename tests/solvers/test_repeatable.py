"""A closure is one function for a step: the same random numbers and buffers at each call, and one mark of them."""

import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from solvers.repeatable import Repeatable


def drawn():
    """One number of each of the three sources."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.fixture(autouse=True)
def states():
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(1), np.random.seed(2), torch.manual_seed(3)
        yield
    random.setstate(kept[0]), np.random.set_state(kept[1])


def test_all_calls_meet_the_random_numbers_of_the_first_and_leave_what_it_left():
    calls = []

    def closure():
        calls.append(1)
        return [drawn() for _ in calls]  # more of them each time

    batch = Repeatable(closure, [], weakref.WeakSet())
    first = batch()
    (after,) = Repeatable(lambda: [drawn()], [], weakref.WeakSet())()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    batch = Repeatable(closure, [], weakref.WeakSet())
    calls.clear()
    assert batch() == first
    assert batch()[:1] == first
    assert batch.aside(lambda: [drawn(), drawn()])[:1] == first
    assert drawn() == after


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self):
        self.calls += 1
        return float(self.calls)


def test_all_calls_meet_the_buffers_of_the_first_and_leave_what_it_left():
    model = Counting()
    buffer = model.calls
    batch = Repeatable(lambda: [model(), model()], [], weakref.WeakSet())
    assert [batch() for _ in range(3)] == [[1.0, 2.0]] * 3
    assert batch.aside(model) == 1.0
    assert model.calls is buffer
    assert float(buffer) == 2.0


def test_a_call_that_fails_leaves_what_the_first_one_left():
    model = Counting()
    batch = Repeatable(model, [], weakref.WeakSet())
    batch()
    expected = torch.get_rng_state()

    def failing():
        model(), drawn()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        batch.aside(failing)
    assert float(model.calls) == 1.0
    assert torch.equal(torch.get_rng_state(), expected)
