"""Barriers and paths against closed forms; permuted copies have none after alignment; dropout against masks by hand."""

import itertools
import math

import pytest
import torch
from sharpness_cases import Unchanged
from surface_cases import function, mlp, samples, trained_norms
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from landscape.surface import align, barrier, curvature_along, dropout_stability, path
from landscape.surface.points import Points


def double_well(t):
    return (t[0] ** 2 - 1) ** 2 + 0.25 * t[0] + t[1] ** 2


def test_a_double_well():
    f = function(torch.zeros(2), double_well)
    a, b = torch.tensor([-1.0, 0.0]).double(), torch.tensor([1.0, 0.0]).double()
    unchanged = Unchanged(f.model)
    found = barrier(f, a, b, points=41)
    unchanged.check()
    x = 2 * found.t - 1
    torch.testing.assert_close(found.values, (x**2 - 1) ** 2 + 0.25 * x)
    assert found.height == pytest.approx(1.0, abs=1e-12)  # above the chord, which is 0.25 x
    assert found.error < 1e-14
    assert found.complete


def test_no_barrier_is_below_zero():
    f = function(torch.zeros(2), lambda t: t.square().sum())
    assert barrier(f, -torch.ones(2).double(), torch.ones(2).double()).height == 0.0


def test_a_stopped_and_resumed_barrier():
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    a, b = f.theta(), -f.theta()
    seen = []
    whole = barrier(f, a, b)
    holes = whole.values.clone()
    holes[[0, 7]] = math.nan
    assert torch.equal(barrier(f, a, b, known=holes, callback=lambda *_: seen.append(1)).values, whole.values)
    assert len(seen) == 2
    with f.at(b):
        assert whole.values[-1].item() == f.value()


def permuted(f, theta):
    pieces = f.unflatten(theta)
    p = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    for name, t in pieces.items():
        pieces[name] = t[:, p] if name == "3.weight" else t if name == "3.bias" else t[p]
    return f.flatten(pieces)


@pytest.mark.parametrize("norm", [False, True])
def test_a_permuted_copy_has_no_barrier_after_alignment(norm):
    X, y = samples()
    f = Objective(trained_norms(mlp(norm=norm), X), nn.CrossEntropyLoss(), [(X[:25], y[:25]), (X[25:], y[25:])])
    a = f.theta()
    b = permuted(f, a)
    found = barrier(f, a, b)
    assert found.values[0].item() == pytest.approx(float(found.values[-1]), rel=1e-6)
    assert (found.values - found.values[0]).abs().max() > 1e-3
    assert found.statistics == ("recompute" if norm else "keep")
    after = barrier(f, a, align(f, a, b))
    assert after.height <= after.error < 1e-5


def test_statistics_between_two_networks():
    X, y = samples()
    f = Objective(trained_norms(mlp(norm=True), X), nn.CrossEntropyLoss(), (X, y))
    a = f.theta()
    with pytest.raises(ValueError, match=r'belong to one network at most: statistics="recompute"'):
        barrier(f, a, a + 0.1, statistics="keep")
    assert barrier(f, a, a, statistics="keep").statistics == "keep"
    train = Objective(f.model, nn.CrossEntropyLoss(), (X, y), mode="train")
    assert barrier(train, a, a + 0.1, statistics="keep").statistics == "keep"  # there are none to keep
    own = barrier(f, a, a + 0.1, points=3)  # one batch: its statistics are those of train mode, variances unbiased
    with train.at(a):
        assert own.values[0] == pytest.approx(train.value(), rel=0.02)


# -- paths -------------------------------------------------------------------------------------------------------------


def ring(t):
    return (t.square().sum() - 1) ** 2


@pytest.mark.parametrize(("kind", "bends"), [("bezier", 1), ("polygon", 1), ("bezier", 2), ("polygon", 3)])
def test_around_a_ring(kind, bends):
    f = function(torch.zeros(2), ring)
    a, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    unchanged = Unchanged(f.model)
    found = path(f, a, b, kind, bends=bends)
    unchanged.check()
    assert found.straight == pytest.approx(0.25)
    assert found.height < 0.03  # of two chords of the ring 0.021
    assert torch.equal(found.at(torch.tensor([0.0, 1.0])), torch.stack([a, b]))
    assert found.nodes.shape == (bends + 2, 2)
    for t, value in zip(found.t, found.values, strict=True):
        assert float(ring(found.at(t))) == pytest.approx(float(value), abs=1e-12)
    assert torch.equal(path(f, a, b, kind, bends=bends).nodes, found.nodes)


def test_coefficients_of_paths():
    f = function(torch.zeros(2), ring)
    a, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    t = 0.3
    curve = path(f, a, b, steps=3)
    m = curve.nodes[1]
    torch.testing.assert_close(curve.at(t), (1 - t) ** 2 * a + 2 * t * (1 - t) * m + t**2 * b)
    broken = path(f, a, b, "polygon", steps=3)
    torch.testing.assert_close(broken.at(t), 2 * (t * broken.nodes[1] + (0.5 - t) * a))
    torch.testing.assert_close(broken.at(0.5), broken.nodes[1])


def test_training_stops_on_request_and_leaves_no_mark():
    X, y = samples()
    f = Objective(trained_norms(mlp(norm=True), X), nn.CrossEntropyLoss(), [(X[:25], y[:25]), (X[25:], y[25:])])
    unchanged = Unchanged(f.model)
    found = path(f, f.theta(), -f.theta(), steps=10, points=3, callback=lambda step, steps, value: step == 4)
    unchanged.check()
    assert (found.steps, found.complete, found.statistics) == (4, False, "recompute")


def test_curvature_along_a_path():
    f = function(torch.zeros(2), lambda t: t[0] ** 4 + t[1] ** 2)
    thetas = torch.tensor([[0.1, 0.0], [1.0, 3.0], [2.0, 0.0]])
    found = curvature_along(f, thetas, tol=1e-8)
    torch.testing.assert_close(found.values, torch.tensor([2.0, 12.0, 48.0]).double(), rtol=1e-6, atol=0)
    assert found.converged
    assert (found.errors < 1e-5).all()
    stopped = curvature_along(f, thetas, callback=lambda done, total, value: done == 2)
    assert stopped.values.isnan().tolist() == [False, False, True]
    assert not stopped.converged
    seen = []
    rest = curvature_along(f, thetas, tol=1e-8, known=stopped, callback=lambda *told: seen.append(told))
    assert [(done, total, found.values.isnan().any().item()) for done, total, found in seen] == [(3, 3, False)]
    assert torch.equal(rest.values[:2], stopped.values[:2])
    assert rest.converged
    assert 0 < rest.matvecs < found.matvecs
    with pytest.raises(ValueError, match="known= has 3 points, the path 2"):
        curvature_along(f, thetas[:2], known=stopped)


def test_a_loss_that_is_nan_on_the_way_has_no_known_height():
    f = function(torch.zeros(1), lambda t: (t[0].square() - 0.5).sqrt())
    a, b = torch.tensor([-1.0]), torch.tensor([1.0])
    found = barrier(f, a, b, points=9)
    assert found.complete
    assert 0 < int(found.values.isnan().sum()) < 9
    assert math.isnan(found.height)
    assert math.isnan(found.error)
    hill = function(torch.zeros(1), lambda t: 1 - t[0].square())
    stopped = barrier(hill, a, b, points=9, callback=lambda done, *_: done == 3)  # ends and middle come first
    assert not stopped.complete
    assert stopped.height == pytest.approx(1.0)
    low = path(f, a, b, steps=0, points=5)
    assert math.isnan(low.height)
    assert math.isnan(low.straight)


def test_points_of_a_path_are_made_one_at_a_time(monkeypatch):
    f = function(torch.zeros(2), lambda t: t[0] ** 4 + t[1] ** 2)
    low = path(f, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), steps=3, points=5)
    expected = curvature_along(f, low.at(low.t))
    made, rows = [], Points.rows
    monkeypatch.setattr(Points, "rows", lambda self, which: made.append(len(which)) or rows(self, which))
    found = curvature_along(f, low)
    assert set(made) == {1}
    torch.testing.assert_close(found.values, expected.values)


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_dropped_units_are_masked_and_the_others_scaled():
    X, y = samples()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    subnetworks = []
    for kept in itertools.combinations(range(4), 2):
        mask = torch.zeros(4)
        mask[list(kept)] = 2.0
        subnetworks.append(F.cross_entropy(model[2](model[1](model[0](X)) * mask), y).item())
    unchanged = Unchanged(model)
    found = dropout_stability(f, 0.5, samples=64, generator=torch.Generator().manual_seed(0))
    unchanged.check()
    exact = sum(subnetworks) / len(subnetworks)
    assert abs(found.value - exact) < 4 * found.stderr
    one = dropout_stability(f, 0.5, samples=1, generator=torch.Generator().manual_seed(1))
    assert min(abs(one.value - value) for value in subnetworks) < 1e-6
    assert one.stderr == math.inf
    assert found.matvecs >= 64


def test_nothing_dropped():
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    found = dropout_stability(f, 0.0, samples=3)
    assert found.value == pytest.approx(f.value())
    assert 0 < found.stderr < 1e-6


def test_refusals():
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    a = f.theta()
    for call, text in (
        (lambda: barrier(f, a, a[:3]), "b must have shape"),
        (lambda: barrier(f, a, a, points=2), "at least three points"),
        (lambda: barrier(f, a, a, statistics="none"), "statistics is"),
        (lambda: path(f, a, a), "a and b are the same"),
        (lambda: path(f, a, -a, "arc"), "kind is"),
        (lambda: path(f, a, -a, bends=0), "must be positive"),
        (lambda: dropout_stability(f, 1.0), "share lies in"),
        (lambda: dropout_stability(f, 0.5, samples=0), "samples is at least 1"),
        (lambda: curvature_along(f, a[None, :3]), "each of thetas must have shape"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    single = Objective(nn.Linear(6, 3), nn.CrossEntropyLoss(), samples())
    with pytest.raises(ValueError, match="no hidden layer"):
        dropout_stability(single, 0.5)
