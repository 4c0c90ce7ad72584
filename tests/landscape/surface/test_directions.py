"""Directions: norms filter by filter, eigenvectors of dense matrices, principal components by SVD."""

import math

import pytest
import torch
from sharpness_cases import Unchanged
from surface_cases import function, mlp, rotation, samples
from torch import nn

from landscape import Objective
from landscape.surface import (
    between_directions,
    between_frame,
    eigen_directions,
    frames,
    gradient_direction,
    line,
    plane,
    random_directions,
    trajectory_directions,
    trajectory_frame,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 2), nn.Flatten(), nn.Linear(48, 5), nn.PReLU()
    )
    g = seeded(3)
    return Objective(model.eval(), nn.CrossEntropyLoss(), (torch.randn(7, 2, 5, 5, generator=g), torch.arange(7) % 5))


@pytest.mark.parametrize("vectors", ["zero", "scale"])
def test_each_filter_has_the_norm_of_its_weights(vectors):
    f = network()
    D = random_directions(f, 2, generator=seeded(), vectors=vectors)
    assert D.shape == (f.size, 2)
    for column in D.T:
        for name, d in f.unflatten(column).items():
            w = f.model.get_parameter(name).detach()
            if w.ndim < 2:
                torch.testing.assert_close(d.norm(), w.norm() if vectors == "scale" else torch.zeros(()))
                continue
            d, w = (t.transpose(0, 1) if name == "2.weight" else t for t in (d, w))
            torch.testing.assert_close(d.flatten(1).norm(dim=1), w.flatten(1).norm(dim=1))
    assert (D[:, 0] @ D[:, 1]).abs() < 0.5 * D[:, 0].norm() * D[:, 1].norm()


def test_layers_and_raw_directions():
    f = network()
    D = random_directions(f, 1, "layer", seeded())
    for name, d in f.unflatten(D[:, 0]).items():
        w = f.model.get_parameter(name).detach()
        torch.testing.assert_close(d.norm(), w.norm() if w.ndim > 1 else torch.zeros(()))
    raw = random_directions(f, 3, "none", seeded())
    assert raw.std().item() == pytest.approx(1.0, abs=0.1)
    assert not (raw == 0).any()
    assert torch.equal(raw, random_directions(f, 3, "none", seeded()))


def test_scales_of_layers_do_not_matter():
    """Li et al.'s reason: a ReLU network whose layers are rescaled has the same filter-normalised surface."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    f = Objective(model, nn.CrossEntropyLoss(), samples(dtype=torch.float64))
    one = plane(f, random_directions(f, 2, generator=seeded()), points=5)
    with torch.no_grad():
        model[0].weight *= 10.0
        model[2].weight /= 10.0
    other = plane(f, random_directions(f, 2, generator=seeded()), points=5)
    torch.testing.assert_close(one.values, other.values)


def test_eigenvectors():
    Q = rotation(5)
    f = function(torch.zeros(5), lambda t: 0.5 * t @ (Q * torch.tensor([9.0, 5.0, 1.0, 0.5, 0.1]).double()) @ Q.T @ t)
    unchanged = Unchanged(f.model)
    D = eigen_directions(f, 2, tol=1e-10, generator=seeded())
    unchanged.check()
    torch.testing.assert_close((D.T @ Q[:, :2]).abs(), torch.eye(2).double(), rtol=0, atol=1e-8)
    assert (D.gather(0, D.abs().argmax(dim=0, keepdim=True)) > 0).all()
    curvature = plane(f, D, points=3).curvature
    torch.testing.assert_close(curvature, torch.diag(torch.tensor([9.0, 5.0]).double()), rtol=0, atol=1e-7)


def test_the_gradient():
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    d = gradient_direction(f)
    torch.testing.assert_close(d[:, 0], f.gradient() / f.gradient().norm())
    assert line(f, d, span=0.1, points=3).gradient.item() == pytest.approx(float(f.gradient().norm()), rel=1e-5)
    flat = function(torch.zeros(2), lambda t: t.square().sum())
    with pytest.raises(ValueError, match="gradient is zero"):
        gradient_direction(flat)


@pytest.mark.parametrize("together", [frames._TOGETHER, 40])  # numbers at a time
def test_a_trajectory_by_svd(monkeypatch, together):
    monkeypatch.setattr(frames, "_TOGETHER", together)
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    thetas = torch.randn(7, f.size, generator=seeded()) * torch.linspace(3, 0.1, f.size) + 5.0
    frame = trajectory_frame(f, thetas)
    centred = thetas.double() - thetas.double().mean(dim=0)
    _, s, V = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close((frame.directions.double().T @ V[:2].T).abs(), torch.eye(2).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(frame.explained, (s**2 / (s**2).sum())[:2])
    assert torch.equal(frame.centre, thetas[-1])
    assert frame.coordinates[-1].abs().max() < 1e-12
    drawn = frame.centre + frame.coordinates.float() @ frame.directions.T
    torch.testing.assert_close((thetas - drawn).norm(dim=1).double(), frame.distances, rtol=1e-4, atol=1e-4)
    assert torch.equal(trajectory_directions(f, list(thetas)), frame.directions)


def test_a_trajectory_on_a_plane_has_no_distance():
    f = Objective(mlp(torch.float64), nn.CrossEntropyLoss(), samples(dtype=torch.float64))
    basis = torch.randn(f.size, 2, generator=seeded(), dtype=torch.float64)
    frame = trajectory_frame(f, torch.randn(5, 2, generator=seeded(1), dtype=torch.float64) @ basis.T)
    assert frame.distances.max() < 1e-10
    assert frame.explained.sum().item() == pytest.approx(1.0)
    surface = plane(f, frame.directions, points=3, centre=frame.centre)
    with f.at(frame.centre):
        assert surface.values[1, 1] == pytest.approx(f.value())
    with pytest.raises(ValueError, match="fewer than 3 directions"):
        trajectory_frame(f, torch.randn(5, 2, generator=seeded(1), dtype=torch.float64) @ basis.T, 3)


def test_through_three_points():
    f = Objective(mlp(torch.float64), nn.CrossEntropyLoss(), samples(dtype=torch.float64))
    thetas = torch.randn(3, f.size, generator=seeded(), dtype=torch.float64)
    frame = between_frame(f, thetas)
    d1, d2 = frame.directions.T
    assert d1 @ d2 == pytest.approx(0.0, abs=1e-10)
    assert d1.norm() == pytest.approx(float(d2.norm()))
    torch.testing.assert_close(frame.centre + frame.coordinates @ frame.directions.T, thetas)
    assert frame.distances.max() < 1e-10
    assert frame.explained.sum().item() == pytest.approx(1.0)
    assert between_frame(f, thetas[:2]).coordinates.flatten().tolist() == pytest.approx([-1.0, 1.0])
    torch.testing.assert_close(between_directions(f, thetas[:2])[:, 0], (thetas[1] - thetas[0]) / 2)


def test_refusals():
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    theta = f.theta()
    for call, text in (
        (lambda: random_directions(f, 0), "k must be"),
        (lambda: random_directions(f, 1, "neuron"), "normalise is"),
        (lambda: random_directions(f, 1, vectors="other"), "vectors is"),
        (lambda: trajectory_frame(f, [theta, theta]), "at least 3 parameter vectors"),
        (lambda: trajectory_frame(f, [theta[:3]] * 3), "have shape"),
        (lambda: trajectory_frame(f, [theta] * 3), "vary in fewer than 2 directions"),
        (lambda: between_frame(f, [theta]), "two or three"),
        (lambda: between_frame(f, [theta, theta]), "span no plane"),
        (lambda: between_frame(f, [theta, 2 * theta, 3 * theta]), "span no plane"),
        (lambda: between_frame(f, []), "no parameter vectors"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    assert math.isfinite(f.value())
