"""Remark 1 and Examples 4 and 5: stationary points, gradients, projections, and pairs that are exact or hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from landscape.regularity import alpha_beta, margins
from landscape.regularity import examples as toys
from landscape.regularity.families import factorization, ridges, saturations, two_layer

RNG = np.random.default_rng(5)


def small_factorization():
    first, second = np.array([1.0, -1.0, 1.0]), np.array([1.0, 1.0])
    return factorization([[2.0, 2.0, 0.0]], [[1.5, -1.5]], 0.3 * np.outer(first, second), bound=4.0)


def small_network():
    x = [[1.0, 0.5], [-0.5, 2.0], [-1.0, -1.0], [2.0, -0.5]]
    return two_layer(x, [1, -1, 1, -1], width=2, decay=0.05, first=3.0, second=3.0, starts=12)


FAMILIES = {
    "ridges": lambda: ridges([0.3, -1.0, 0.8], 3),
    "saturations": lambda: saturations([[0.0, 0.0, 0.2], [0.9, 0.1, 0.0], [0.1, 0.7, 0.4]]),
    "factorization": small_factorization,
    "two layers": small_network,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_minimisers_and_pairs(name):
    problem = FAMILIES[name]()
    x = RNG.uniform(-1.2, 1.2, (40, problem.dimension))
    step = 1e-6
    for axis in range(problem.dimension):
        moved = step * np.eye(problem.dimension)[axis]
        slopes = (problem.values(x + moved) - problem.values(x - moved)) / (2 * step)
        np.testing.assert_allclose(problem.gradients(x)[..., axis], slopes, atol=1e-7)
    ends = problem.project(x)
    np.testing.assert_allclose(problem.values(ends).mean(axis=0), problem.minimum, rtol=1e-7)
    if name != "two layers":  # whose minimiser may lie on a kink of ReLU
        np.testing.assert_allclose(problem.gradients(ends).mean(axis=0), 0.0, atol=1e-5)
    assert (problem.values(x) >= problem.infimum[:, None]).all()
    assert (problem.values(x).mean(axis=0) >= problem.minimum - 1e-12).all()
    (alpha, beta), t = problem.pairs[0], problem.trajectory(x)
    assert alpha - beta == pytest.approx(1.0)
    assert margins(t, [alpha], [beta])[0, 0] >= -1e-9 * beta


@pytest.mark.parametrize("name", ["ridges", "saturations"])
def test_the_pairs_of_remark_1_are_exact_far_away(name):
    problem = FAMILIES[name]()
    x = np.concatenate([scale * RNG.standard_normal((500, 3)) for scale in (1.0, 10.0, 1000.0)])
    assert alpha_beta(problem.trajectory(x), 1.0).beta == pytest.approx(problem.pairs[0][1], rel=1e-4)


def test_a_constant_belongs_to_its_region():
    """Example 6 at gap 1 needs less on smaller squares, and 1/c - 1 = 19.685 on the plane, where 2/c - 1 is stated."""
    problem = toys.two_minima()
    squares = [(-2.0, 3.0), (-5.0, 5.0), (-6.0, 8.0), (-1e3, 1e3)]
    betas = [alpha_beta(problem.trajectory(toys.grid(*square, 101)), 1.0).beta for square in squares]
    assert betas == pytest.approx([15.50, 18.48, 19.062, 19.685], abs=0.01)
    assert problem.pairs[0][1] == pytest.approx(2 * (betas[-1] + 1) - 1, rel=1e-4)


def test_projection_on_the_orbit_of_factors_of_rank_one():
    """(a w, s / a) is nearest where a^4 |w|^2 - a^3 <w, W> + a <s, S> - |s|^2 = 0."""
    problem = small_factorization()
    w, s = np.array([2.0, 2.0, 0.0]), np.array([1.5, -1.5])
    for point in RNG.uniform(-2, 2, (20, 5)):
        W, S = point[:3], point[3:]
        roots = np.roots([w @ w, -(w @ W), 0.0, s @ S, -(s @ s)])
        tried = [np.concatenate([a * w, s / a]) for a in roots[np.abs(roots.imag) < 1e-9].real]
        nearest = min(tried, key=lambda end: np.linalg.norm(end - point))
        np.testing.assert_allclose(problem.project(point[None])[0], nearest, atol=1e-4)


def test_infimum_of_a_network_on_one_sample():
    problem = small_network()
    for term, infimum in zip(problem.terms, problem.infimum, strict=True):
        starts = RNG.standard_normal((4, problem.dimension))
        found = min(minimize(lambda z, term=term: term(z[None])[0][0], start).fun for start in starts)
        assert found == pytest.approx(infimum, abs=1e-6)


def test_example_5_excludes_a_sum_that_is_minimal_where_its_functions_are():
    with pytest.raises(ValueError, match="Example 5 excludes that"):
        two_layer([[1.0]], [1], width=1, decay=0.05, first=1.0, second=1.0, starts=4)
