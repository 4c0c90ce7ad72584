"""The toy functions: what their papers say of them, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.regularity import admissible, aiming, alpha_beta, margins, violated
from landscape.regularity import examples as toys


@pytest.mark.parametrize(
    ("problem", "gap", "square", "beta"),
    [
        (toys.unbounded_minimisers, 0.5, (-6, 8), 1.958),
        (toys.two_minima, 1.0, (-6, 8), 19.062),
        (toys.two_minima, 1.0, (-5, 5), 18.48),
        (toys.two_minima, 1.0, (-2, 3), 15.50),
    ],
)
def test_published_examples_on_their_squares(problem, gap, square, beta):
    found = alpha_beta(problem().trajectory(toys.grid(*square, 281)), gap)
    assert found.beta == pytest.approx(beta, abs=0.005)
    assert found.alpha == found.beta + gap
    assert found.ratio == found.beta / gap
    assert found.vacuous


@pytest.mark.parametrize(
    ("problem", "margin"),
    [(toys.unbounded_minimisers, 0.0084), (toys.saddle, 0.0), (toys.local_minimum, 1.436), (toys.two_minima, 1.030)],
)
def test_pairs_that_the_source_states_hold(problem, margin):
    toy = problem()
    t = toy.trajectory(toys.grid(-6, 8, 141))
    (pair,) = toy.pairs
    assert admissible(t, *pair)
    assert violated(t, *pair) == 0
    assert margins(t, pair[0], pair[1])[0, 0] == pytest.approx(margin, abs=5e-4)
    if toy.name == "example 2":  # tight at 8 / c, far from the minimisers; any more is positive
        assert margins(t, 8.8e6, 8.8e6 - 8)[0, 0] > 0.001


def test_what_is_known_of_the_examples():
    saddle, local, two, line = toys.saddle(), toys.local_minimum(), toys.two_minima(), toys.two_functions()
    assert saddle.minimum == pytest.approx(0.499832, abs=1e-6)
    np.testing.assert_allclose(saddle.project(np.array([[0.0, 0], [3, 3]])), [[0.00067] * 2, [1.99933] * 2], atol=1e-5)
    assert saddle.values(saddle.project(np.zeros((1, 2)))).min() == pytest.approx(9.09e-7, rel=1e-3)
    assert local.minimum == pytest.approx(0.408313, abs=1e-6)
    assert local.project(np.zeros((1, 2)))[0, 0] == pytest.approx(2.47172, abs=1e-5)
    assert local.values(np.zeros((1, 2))).mean() == pytest.approx(0.587963, abs=1e-6)
    assert local.values(np.full((1, 2), 2.5)).mean() == pytest.approx(0.409091, abs=1e-6)
    assert two.minimum == pytest.approx(0.316988, abs=1e-6)
    np.testing.assert_allclose(two.project(np.array([[0.0, 0], [3, 3]])), [[0.159375] * 2, [0.840625] * 2], atol=1e-6)
    assert line.sigma2 == pytest.approx(0.171178, abs=1e-6)


ALL_TOYS = (
    toys.unbounded_minimisers,
    toys.saddle,
    toys.local_minimum,
    toys.two_minima,
    toys.two_functions,
    toys.half_space,
)


@pytest.mark.parametrize("problem", ALL_TOYS)
def test_gradients_infima_and_smoothness_of_the_examples(problem):
    toy = problem()
    rng = np.random.default_rng(0)
    x = rng.uniform(-6, 8, (400, toy.dimension))
    g = toy.gradients(x)
    step = 1e-6
    for axis in range(toy.dimension):
        shift = np.zeros(toy.dimension)
        shift[axis] = step
        slope = (toy.values(x + shift) - toy.values(x - shift)) / (2 * step)
        np.testing.assert_allclose(g[..., axis], slope, atol=2e-8)
    assert (toy.values(x) >= toy.infimum[:, None]).all()
    y = x + 1e-3 * rng.normal(size=x.shape)
    bend = np.linalg.norm(toy.gradients(y) - g, axis=-1) / np.linalg.norm(y - x, axis=-1)
    assert bend.max() <= toy.smoothness * (1 + 1e-6)
    if toy.project is not None:
        ends = toy.project(x)
        assert np.abs(toy.gradients(ends).mean(axis=0)).max() < 1e-12
        np.testing.assert_allclose(toy.values(ends).mean(axis=0), toy.minimum, rtol=1e-12)
        assert toy.values(x).mean(axis=0).min() >= toy.minimum


def test_gradients_of_the_examples_by_automatic_differentiation():
    z = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    q, shifted = (z**2).sum(1), ((z - 2.5) ** 2).sum(1)
    u = z.sum(1)
    written = {
        toys.unbounded_minimisers: [u**2 / (1 + u**2), (u + 1) ** 2 / (1 + (u + 1) ** 2)],
        toys.saddle: [1 - torch.exp(-q), 1 - torch.exp(-((z - 2) ** 2).sum(1))],
        toys.local_minimum: [(1 + q) / (4 + q), shifted / (1 + shifted)],
        toys.two_minima: [q / (1 + q), ((z - 1) ** 2).sum(1) / (1 + ((z - 1) ** 2).sum(1))],
    }
    for problem, functions in written.items():
        toy = problem()
        x = z.detach().numpy()
        for value, own, gradient in zip(functions, toy.values(x), toy.gradients(x), strict=True):
            np.testing.assert_allclose(own, value.detach().numpy(), atol=1e-14)
            (expected,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
            np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-14)
    line = torch.linspace(-4, 4, 50, dtype=torch.float64, requires_grad=True)
    for sign, own in zip((1, -1), toys.two_functions().gradients(line.detach().numpy()[:, None]), strict=True):
        value = (line - sign) ** 2 / 2 + (1 - torch.cos(2 * line)) / 2
        np.testing.assert_allclose(own[:, 0], torch.autograd.grad(value.sum(), line)[0].numpy(), atol=1e-14)
    half = toys.half_space(samples=3, weight=0.01)
    assert half.values(np.zeros((1, 2))).max() == pytest.approx(0.5)
    near = half.values(toys.grid(-8, 8, 161)).min(axis=1)
    np.testing.assert_allclose(half.infimum, near, atol=2e-3)
    assert (half.infimum <= near).all()


def test_half_space_run_is_held_against_its_own_end():
    toy = toys.half_space()
    rng, x = np.random.default_rng(1), np.array([[4.0, -4.0]])
    path = [x]
    for _ in range(300):
        x = x - 0.25 * toy.gradients(x)[rng.integers(40)]
        path.append(x)
    t = toy.trajectory(np.concatenate(path), end=x[0])
    assert len(t) == 301 * 40
    assert not aiming(t).holds
    with pytest.raises(ValueError, match="minimisers of half-space are not known"):
        toy.trajectory(x)
