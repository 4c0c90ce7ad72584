"""The curvature of one loss along the steps of another, against closed forms of two quadratics of the same vector."""

import math

import pytest
import torch
from sharpness_cases import Unchanged, normal, positive
from torch import nn

from landscape import Objective
from landscape.sharpness import critical_sharpness, relative_critical_sharpness


class Vector(nn.Module):
    """A model that is its parameters."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, x):
        return self.theta


def loss_of(model, A, centre):
    """(theta - centre)^T A (theta - centre) / 2."""
    data = (torch.zeros(1, 1), torch.zeros(1))
    return Objective(model, lambda x, _: 0.5 * (x - centre) @ A @ (x - centre), data, count=lambda *_: 1.0)


@pytest.fixture
def two():
    """Two quadratics with different minima, and their gradients at 0."""
    model = Vector(torch.zeros(8, dtype=torch.float64))
    A, B = positive(8, seed=1), 3.0 * positive(8, seed=2)
    a, b = normal(8, seed=3), normal(8, seed=3) + 0.5 * normal(8, seed=4)
    return loss_of(model, A, a), loss_of(model, B, b), B, -A @ a, -B @ b


@pytest.mark.parametrize("rtol", [1 / 16, 1e-4])
def test_the_value_is_the_rayleigh_quotient_of_the_watched_loss(two, rtol):
    moves, watched, B, update, g = two
    truth = float(update @ B @ update / (update @ g))
    assert truth > 0
    unchanged = Unchanged(watched.model)
    found = relative_critical_sharpness(moves=moves, watched=watched, rtol=rtol)
    unchanged.check()
    assert found.converged
    assert not found.ascent
    assert found.lower * (1 - 1e-9) <= truth <= found.upper * (1 + 1e-9)
    assert found.upper <= found.lower * (1 + 1.01 * rtol)
    assert found.slope == pytest.approx(-float(update @ g), rel=1e-12)
    assert 0 < found.slope_error < 1e-12
    assert found.gradients == 2
    # the update itself, the loss and gradient known: the same search, and nothing is measured twice
    again = relative_critical_sharpness(
        moves=update, watched=watched, start=found.step, rtol=rtol, known=(watched.value(), g)
    )
    assert again.lower <= truth <= again.upper
    assert (again.gradients, again.evaluations) == (0, 2)
    assert again.loss == found.loss == watched.value()


def test_of_one_loss_it_is_the_critical_sharpness(two):
    moves, *_ = two
    found, plain = relative_critical_sharpness(moves=moves, watched=moves), critical_sharpness(moves)
    assert (found.value, found.lower, found.upper, found.step) == (plain.value, plain.lower, plain.upper, plain.step)
    assert found.slope == pytest.approx(-float(moves.gradient().square().sum()))


def test_a_watched_loss_that_rises_at_once(two):
    _, watched, _, update, g = two
    found = relative_critical_sharpness(moves=-update, watched=watched)
    assert (found.value, found.step, found.ascent, found.converged, found.reason) == (math.inf, 0.0, True, True, "")
    assert found.slope == pytest.approx(float(update @ g))
    assert found.evaluations == 0  # the slope says it
    eta = 1e-6
    with watched.at(watched.theta() + eta * update):
        risen = watched.value()
    assert (risen - watched.value()) / eta == pytest.approx(found.slope, rel=1e-4)


@pytest.mark.parametrize(("sign", "ascent"), [(1.0, True), (-1.0, False)])
def test_where_the_slope_is_nothing_but_rounding_the_steps_decide(sign, ascent):
    """At the minimum of the watched loss every step raises it, at its maximum none does."""
    model = Vector(torch.zeros(4, dtype=torch.float64))
    watched = loss_of(model, sign * torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    found = relative_critical_sharpness(moves=torch.ones(4), watched=watched)
    assert (found.slope, found.ascent) == (0.0, ascent)
    assert found.value == (math.inf if ascent else 0.0)
    assert found.converged == ascent
    assert ("no step" in found.reason) != ascent


def test_what_cannot_be_measured_is_refused(two):
    moves, watched, _, update, _ = two
    for options, message in [
        ({"moves": update[:3]}, r"shape \(8,\)"),
        ({"moves": loss_of(Vector(update), torch.eye(8, dtype=torch.float64), update)}, "different parameters"),
        ({"moves": moves, "rtol": 0.0}, "must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            relative_critical_sharpness(watched=watched, **options)
    with pytest.raises(FloatingPointError, match="slope"):
        relative_critical_sharpness(moves=math.nan * update, watched=watched)
