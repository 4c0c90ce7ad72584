"""Function classes of a trajectory: closed forms, brute force, the published toy examples, and every refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from landscape.regularity import (
    Trajectory,
    admissible,
    aiming,
    alpha_beta,
    alpha_beta_frontier,
    angles,
    best_ratio,
    describe,
    error_bound,
    kurdyka_lojasiewicz,
    margins,
    polyak_lojasiewicz,
    quadratic_growth,
    quasar_convexity,
    restricted_secant,
    smoothness,
    star_convexity,
    violated,
)
from landscape.regularity import examples as toys
from landscape.regularity.envelopes import lower_envelope, lowest_point
from landscape.regularity.summary import ranges

GAPS = np.geomspace(0.01, 10, 30)


def made(r, D, E=None, *, grad_norm=10.0, steps=None):
    """A trajectory with these r_k, D_k and E_k = f_k(x_K) - f_k^*, by default as small as D allows."""
    r, D = np.asarray(r, dtype=float), np.asarray(D, dtype=float)
    E = np.maximum(0, -D) if E is None else np.broadcast_to(E, r.shape)
    ones = np.ones(r.shape)
    return Trajectory(r, D, 0 * D, -E, grad_norm * ones, ones, steps=steps)


def random_trajectory(rng, rows=None, *, interpolated=0.0):
    rows = rows or int(rng.integers(1, 30))
    D = rng.normal(size=rows)
    E = rng.exponential(size=rows) * (rng.random(rows) >= interpolated)
    return made(rng.normal(size=rows) + rng.normal(), D, np.maximum(E, -D * (D < 0)))


def quadratic(seed=0, count=600, offset=0.0):
    """Gradient descent on (x - x*)^T A (x - x*) / 2 + offset towards its minimiser; the eigenvalues of A."""
    rng = np.random.default_rng(seed)
    A = np.diag(np.geomspace(0.05, 4.0, 6))
    x, end = rng.normal(size=6), np.zeros(6)
    points = []
    for _ in range(count):
        points.append(x)
        x = x - 0.2 * A @ x
    X = np.array([*points, end])
    f = 0.5 * np.einsum("ki,ij,kj->k", X, A, X) + offset
    G = X @ A
    full = np.full(len(X), offset)
    norms = np.linalg.norm(G, axis=1), np.linalg.norm(X, axis=1)
    return Trajectory((G * X).sum(axis=1), f, full, offset, *norms), np.diag(A)


# -- alpha-beta on the published examples ----------------------------------------------------------------------------


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


# -- the frontier ----------------------------------------------------------------------------------------------------


def test_frontier_against_brute_force():
    """Never inside, at most one grid step away, on 1,000 random trajectories."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        t = random_trajectory(rng)
        gap = float(rng.uniform(0.05, 2.0))
        found = alpha_beta(t, gap)
        grid = np.linspace(0, 2 * found.beta + 1, 2001)
        T = t.inner[:, None] - (grid + gap) * t.drop[:, None] + grid * (t.loss - t.infimum)[:, None]
        works = grid[(T + 1e-12 * (1 + grid) >= 0).all(axis=0)]
        assert works[0] >= found.beta - 1e-9
        assert works[0] - found.beta <= grid[1] + 1e-9
        assert admissible(t, found.alpha, found.beta)
        if found.beta > 1e-6:
            assert found.binding_step is not None
            assert not admissible(t, found.alpha - 1e-6 * found.beta, found.beta * (1 - 1e-6))
            (row,) = np.flatnonzero(t.steps == found.binding_step)
            least = t.inner - gap * t.drop + found.beta * t.excess
            assert least[row] == pytest.approx(least.min(), abs=1e-9)


def test_frontier_is_convex_and_is_alpha_beta_at_each_gap():
    t = random_trajectory(np.random.default_rng(3), 500)
    betas = [found.beta for found in alpha_beta_frontier(t, GAPS)]
    assert betas == [alpha_beta(t, gap).beta for gap in GAPS]
    slopes = np.diff(betas) / np.diff(GAPS)
    assert (np.diff(slopes) >= -1e-9).all()


def test_clipping_interpolation_and_what_no_beta_repairs():
    easy = made([2.0, 1.0], [1.0, 0.5], [1.0, 0.0])
    found = alpha_beta(easy, 0.5)
    assert (found.alpha, found.beta, found.ratio, found.binding_step) == (0.5, 0.0, 0.0, None)
    assert not found.vacuous
    assert admissible(easy, 0.5, 0.0)
    blocked = made([2.0, -0.1], [1.0, 0.5], [1.0, 0.0], steps=[10, 20])
    found = alpha_beta(blocked, 0.5)
    assert found.beta == found.alpha == found.ratio == math.inf
    assert (found.binding_step, found.binding_row, found.vacuous) == (20, 1, False)
    assert "step 20" in str(found)
    assert not admissible(blocked, 1e9, 1e9 - 0.5)
    # r = gap D up to rounding is no violation
    thirds = np.array([0.1, 0.2, 0.3])
    assert alpha_beta(Trajectory(3 * thirds, thirds, 0 * thirds, 0.0, thirds, thirds), 3.0).beta == 0.0


def test_convex_functions_need_no_beta():
    t, _ = quadratic(offset=0.3)
    assert alpha_beta(t, 1.0).beta == 0.0
    assert admissible(t, 1.0, 0.0)
    assert admissible(t, 2.0, 0.0)
    assert not admissible(t, 2.01, 0.0)
    assert not admissible(t, 1.0, 1.0)
    assert not admissible(t, 1.0, -0.1)


def test_any_admissible_pair_can_be_moved_up():
    rng = np.random.default_rng(5)
    for _ in range(100):
        t = random_trajectory(rng)
        found = alpha_beta(t, 0.3)
        for more in (0.1, 10.0):
            assert admissible(t, found.alpha + more, found.beta + more)


def test_quantile_leaves_out_whole_rows():
    rng = np.random.default_rng(7)
    for rows in (1, 7, 10, 100, 333):
        t = random_trajectory(rng, rows, interpolated=0.1)
        for quantile in (0.99, 0.9, 0.7, 0.55, 0.5, 1 / 3):
            found = alpha_beta(t, 0.2, quantile=quantile)
            needed = np.array([_needed(t, k, 0.2) for k in range(rows)])
            out = math.floor((1 - quantile) * rows + 1e-9)
            kept = np.argsort(needed, kind="stable")[: rows - min(out, rows - 1)]
            by_hand = alpha_beta(t.select(kept), 0.2)
            assert found.beta == by_hand.beta
            assert found.left_out == rows - len(kept)
    assert alpha_beta(t, 0.2, quantile=1e-9).left_out == rows - 1


def _needed(t, k, gap):
    lack = gap * t.drop[k] - t.inner[k]
    return lack / t.excess[k] if t.excess[k] > 0 else math.copysign(math.inf, lack)


def test_violated_and_margins_by_hand():
    rng = np.random.default_rng(11)
    t = random_trajectory(rng, 4000)
    alphas, betas = np.linspace(-1, 6, 23), rng.permutation(np.linspace(0, 5, 37))
    T = t.inner - alphas[:, None, None] * t.drop + betas[:, None] * (t.drop + t.excess)
    np.testing.assert_allclose(margins(t, alphas, betas), T.min(axis=-1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(margins(t, betas, alphas), margins(t, betas, alphas[::-1])[:, ::-1], rtol=1e-12)
    assert violated(t, alphas[9], betas[4]) == pytest.approx((T[9, 4] < 0).mean())
    same = t.select(np.zeros(3000, dtype=int))
    np.testing.assert_allclose(margins(same, alphas, betas), T[..., 0], atol=1e-12)


def test_heat_map_is_positive_exactly_above_the_frontier():
    t = random_trajectory(np.random.default_rng(2), 300)
    betas = np.linspace(0, 30, 61)
    for gap in (0.1, 1.0):
        found = alpha_beta(t, gap)
        on_the_line = np.array([margins(t, [beta + gap], [beta])[0, 0] for beta in betas])
        assert ((on_the_line >= -1e-9) == (betas >= found.beta - 1e-9)).all()


# -- the best ratio --------------------------------------------------------------------------------------------------


def test_best_ratio_against_a_dense_scan():
    rng = np.random.default_rng(13)
    gaps = np.geomspace(1e-4, 1e6, 2000)
    for trial in range(300):
        t = random_trajectory(rng, interpolated=0.2 if trial % 3 == 0 else 0.0)
        best = best_ratio(t)
        lack, E = gaps * t.drop[:, None] - t.inner[:, None], t.excess[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(E > 0, lack / E, np.where(lack > 0, math.inf, 0.0))
        scan = np.maximum(0.0, needed.max(axis=0)) / gaps
        assert best.ratio <= scan.min() * (1 + 1e-12) + 1e-12
        if trial < 100:
            E, r, D = t.excess, t.inner, t.drop
            rows = [np.stack([-r, -E], axis=1), -D]  # r u + E ratio >= D
            solved = linprog([0, 1], A_ub=rows[0], b_ub=rows[1], bounds=[(0, None), (0, None)], method="highs")
            assert solved.success == math.isfinite(best.ratio)
            assert not solved.success or best.ratio == pytest.approx(solved.fun, rel=1e-6, abs=1e-6)
        if math.isinf(best.ratio):
            assert np.isinf(scan).all()
            assert best.binding_step is not None
            assert math.isnan(best.gap)
        elif math.isinf(best.gap):
            assert scan[-1] == scan.min() == pytest.approx(best.ratio, rel=1e-4)
        else:
            assert admissible(t, best.alpha, best.beta)
            assert alpha_beta(t, best.gap).beta == pytest.approx(best.beta, rel=1e-9, abs=1e-12)
            assert scan.min() - best.ratio <= 0.02 * (1 + best.ratio)


def test_best_ratio_by_hand():
    # ratio = max(0, 1 - u, 0.1 u) with u = 1 / gap
    best = best_ratio(made([1.0, -0.1], [1.0, 0.0], 1.0))
    assert (best.gap, best.ratio, best.binding_step) == (pytest.approx(1.1), pytest.approx(1 / 11), 0)
    # ratio = 2 + u: the infimum 2 is reached by no gap
    best = best_ratio(made([-1.0], [2.0], 1.0))
    assert (best.gap, best.beta, best.ratio, best.binding_step) == (math.inf, math.inf, 2.0, 0)
    assert str(best) == "ratio 2 as the gap grows, reached by no gap (step 0 binds)"
    # the largest gap with beta = 0
    best = best_ratio(made([1.0, 1.0], [0.5, 0.25], 1.0))
    assert (best.gap, best.beta, best.alpha, best.binding_step) == (2.0, 0.0, 2.0, None)
    # ratio = max(1, u): all gaps from 1 on reach 1
    best = best_ratio(made([0.0, -1.0], [1.0, 0.0], 1.0))
    assert (best.gap, best.beta, best.ratio) == (1.0, 1.0, 1.0)
    # every gap works with beta = 0
    best = best_ratio(made([1.0, 0.0], [-1.0, 0.0], 1.0))
    assert (best.gap, best.beta, best.binding_step) == (1.0, 0.0, None)
    # without beta, r >= gap D
    best = best_ratio(made([1.0, 1.0], [0.5, 1.0], [0.0, 1.0]))
    assert (best.gap, best.beta, best.vacuous) == (pytest.approx(1.0), 0.0, False)
    best = best_ratio(made([1.0, 1.0], [0.5, 1.0], [1.0, 0.0]))
    assert (best.gap, best.beta) == (pytest.approx(1.0), 0.0)
    best = best_ratio(made([1.0, -0.5], [0.5, 0.0], [0.0, 1.0]))
    assert (best.gap, best.ratio, best.binding_step) == (pytest.approx(2.0), pytest.approx(0.25), 1)
    impossible = best_ratio(made([1.0, -1.5], [1.0, 0.5], 0.0, steps=[4, 9]))
    assert (impossible.ratio, impossible.binding_step) == (math.inf, 9)
    assert "no beta works at any gap: step 9" in str(impossible)


def test_lowest_point_and_lower_envelope_of_lines():
    rng = np.random.default_rng(23)
    u = np.linspace(0, 50, 20_001)
    for trial in range(200):
        a, b = rng.normal(size=40), rng.normal(size=40) - 0.5
        if trial % 4 == 0:
            a, b = np.round(a, 1), np.round(b, 1)  # ties and parallels
        b[0] = abs(b[0])
        heights = (a[:, None] + b[:, None] * u).max(axis=0)
        found = lowest_point(a, b, 0.0, 50.0)
        assert found.value <= heights.min() + 1e-9
        assert found.value == pytest.approx((a + b * found.u).max(), abs=1e-9)
        assert found.value == pytest.approx(heights.min(), abs=0.02)
        np.testing.assert_allclose(lower_envelope(a, b, u), (a[:, None] + b[:, None] * u).min(axis=0), atol=1e-12)
    # a thousand tangents of a parabola, all of them on the envelope
    at = np.linspace(0, 4, 1000)
    found = lowest_point(at - at**2 / 4 - 2, at / 2 - 1.3)
    assert found.value == pytest.approx((at - at**2 / 4 - 2 + (at / 2 - 1.3) * found.u).max())
    flat = lowest_point(np.array([1.0, 0.0, 0.0]), np.array([-1.0, 0.0, -2.0]))
    assert (flat.u, flat.value) == (1.0, 0.0)
    with pytest.raises(ValueError, match="every line falls"):
        lowest_point(np.array([1.0, 0.0]), np.array([-1.0, -2.0]))
    # nearly parallel lines end as well
    a, b = 1e3 + 1e-13 * rng.normal(size=1000), 1e-13 * rng.normal(size=1000)
    assert lowest_point(a, b).value == pytest.approx(1e3)


# -- the other conditions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_constants_of_a_quadratic(offset):
    t, eigenvalues = quadratic(offset=offset)
    least = eigenvalues[0]
    for reference in ("final", "infimum"):
        assert polyak_lojasiewicz(t, reference=reference).value == pytest.approx(least, rel=1e-2)
        assert polyak_lojasiewicz(t, reference=reference).value >= least * (1 - 1e-5)
        assert quadratic_growth(t, reference).value == pytest.approx(least, rel=1e-2)
        assert error_bound(t, reference).value == pytest.approx(least, rel=1e-2)
        assert restricted_secant(t, reference).value == pytest.approx(least, rel=1e-2)
        assert quasar_convexity(t, reference).value == pytest.approx(2.0)
        assert star_convexity(t, reference).holds
        for condition in (polyak_lojasiewicz, quadratic_growth, error_bound, restricted_secant, quasar_convexity):
            found = condition(t, reference=reference)
            assert found.holds
            assert len(found.failing_steps) == 0
            assert found.value == condition(t.select([found.binding_step]), reference=reference).value
    assert aiming(t).value == pytest.approx(2.0)
    assert aiming(t).holds
    cosine = angles(t)
    assert math.isnan(cosine[-1])
    assert (cosine[:-1] > 0).all()
    assert (cosine[:-1] <= 1).all()


def test_converged_run_with_a_loss_far_above_zero():
    """Near the end the differences of losses are rounding, of which no constant may be made."""
    t, eigenvalues = quadratic(count=3000, offset=5.0)
    assert (t.drop[-500:] == 0).any()
    assert quasar_convexity(t).holds
    assert quasar_convexity(t).value > 1.5
    assert polyak_lojasiewicz(t).value > 0.5 * eigenvalues[0]
    assert quadratic_growth(t).holds
    assert quadratic_growth(t).value > 0.2 * eigenvalues[0]
    assert star_convexity(t).holds


def test_polyak_lojasiewicz_family():
    t = made([1.0, 1.0, 1.0], [4.0, 0.25, -1.0], 1.0, grad_norm=np.array([2.0, 1.0, 0.0]))
    assert polyak_lojasiewicz(t).value == pytest.approx(0.5)
    assert polyak_lojasiewicz(t).binding_step == 0
    assert polyak_lojasiewicz(t, 1).value == pytest.approx(0.5 * (2 / 4) ** 2)
    assert kurdyka_lojasiewicz(t, 4).value == pytest.approx(2 / 4**0.25)
    for delta in (1, 1.25, 2):
        mu = polyak_lojasiewicz(t, delta).value
        assert kurdyka_lojasiewicz(t, delta).value == pytest.approx(math.sqrt(2 * mu))
    assert not polyak_lojasiewicz(t, reference="infimum").holds or t.drop[2] + t.excess[2] == 0
    stationary = made([1.0, 1.0], [1.0, 1.0], grad_norm=np.array([0.0, 1.0]), steps=[5, 6])
    found = polyak_lojasiewicz(stationary)
    assert (found.value, found.holds, found.binding_step, list(found.failing_steps)) == (0.0, False, 5, [5])
    for delta in (0.9, 2.1, math.nan):
        with pytest.raises(ValueError, match="delta must"):
            polyak_lojasiewicz(t, delta)
    with pytest.raises(ValueError, match="at least 1"):
        kurdyka_lojasiewicz(t, 0.5)


def test_quasar_convexity_where_the_loss_is_below_its_end():
    trap = quasar_convexity(made([0.5, 0.2], [1.0, -0.1]))
    assert (trap.value, trap.holds, trap.binding_step) == (0.5, True, 0)
    # -0.06 < 0.5 * -0.1 is violated at the value, -0.04 is not
    assert quasar_convexity(made([0.5, -0.04], [1.0, -0.1])).holds
    found = quasar_convexity(made([0.5, -0.06], [1.0, -0.1]))
    assert (found.value, found.holds, list(found.failing_steps)) == (0.5, False, [1])
    found = quasar_convexity(made([-0.5, 0.2, 1.0], [1.0, -0.1, 1.0], steps=[3, 4, 5]))
    assert (found.value, found.holds, list(found.failing_steps)) == (-0.5, False, [3])
    free = quasar_convexity(made([0.1, 0.2], [-1.0, -0.1]))
    assert (free.value, free.holds, free.binding_step) == (math.inf, True, None)
    assert not quasar_convexity(made([-0.1, 0.2], [0.0, -0.1])).holds


def test_aiming_looks_at_the_loss_and_quasar_convexity_at_its_decrease():
    t = Trajectory([1.0, 0.5, 0.0], [2.0, 1.5, 1.0], [1.0] * 3, 0.0, [1.0] * 3, [1.0, 0.5, 0.0])
    assert aiming(t).value == pytest.approx(1 / 3)
    assert aiming(t).holds
    assert aiming(t, "final").value == quasar_convexity(t).value == 1.0
    away = Trajectory([-1.0, 0.5, 0.0], [2.0, 1.5, 1.0], [1.0] * 3, 0.0, [1.0] * 3, [1.0, 0.5, 0.0], steps=[7, 8, 9])
    assert list(aiming(away).failing_steps) == [7]
    assert aiming(away).value == -0.5


def test_star_convexity_is_a_margin():
    t = made([1.0, 0.5], [0.75, 0.5])
    assert star_convexity(t).value == 0.0
    assert star_convexity(t).holds
    found = star_convexity(made([1.0, 0.25], [0.75, 0.5]))
    assert (found.value, found.holds, list(found.failing_steps)) == (-0.25, False, [1])


def test_distance_conditions_skip_the_end_point():
    distance, g = np.array([2.0, 0.0, 0.5]), np.array([1.0, 0.0, 3.0])
    t = Trajectory([2.0, 0.0, -0.5], [3.0, 1.0, 0.5], [1.0] * 3, 0.0, g, distance)
    assert restricted_secant(t).value == -2.0
    assert list(restricted_secant(t).failing_steps) == [2]
    assert error_bound(t).value == 0.5
    assert quadratic_growth(t).value == -4.0
    assert quadratic_growth(t, "infimum").value == pytest.approx(2 * 3 / 4)
    np.testing.assert_allclose(angles(t), [1.0, math.nan, -1 / 3])
    valley = quadratic_growth(Trajectory([0.0, 1.0], [1.0, 1.5], [1.0, 1.0], 0.0, [0.0, 1.0], [1.0, 1.0]))
    assert (valley.value, valley.holds, list(valley.failing_steps)) == (0.0, False, [0])


# -- envelopes of curvature ------------------------------------------------------------------------------------------


def test_smoothness_against_linear_programming():
    rng = np.random.default_rng(17)
    for trial in range(200):
        rows = int(rng.integers(1, 60))
        x = rng.exponential(size=rows) * 10.0 ** rng.integers(-3, 4)
        y = rng.normal(size=rows) + rng.uniform(-1, 3) * x / x.max() * rng.random(rows)
        if trial % 5 == 0:
            x = np.round(x)
        found = smoothness(y, x)
        solved = linprog([rows, x.sum()], A_ub=np.stack([-np.ones(rows), -x], axis=1), b_ub=-y, method="highs")
        assert found.slack == pytest.approx(solved.fun - y.sum(), rel=1e-6, abs=1e-6 * np.abs(y).sum())
        assert min(found.c0, found.c1) >= 0
        assert (found.c0 + found.c1 * x >= y - 1e-12 * (1 + np.abs(y))).all()
        assert found.mean_slack == pytest.approx(found.slack / rows)


def test_smoothness_by_hand():
    x = np.linspace(0, 4, 9)
    found = smoothness(2 + 3 * x, x)
    assert (found.c0, found.c1, found.slack) == (pytest.approx(2), pytest.approx(3), pytest.approx(0, abs=1e-12))
    assert len(found.binding_rows) == 9
    falling = smoothness([3.0, 1.0], [0.0, 5.0])
    assert (falling.c0, falling.c1) == (3.0, 0.0)
    through_zero = smoothness([1.0, 1.0, 8.0], [1.0, 2.0, 4.0])
    assert (through_zero.c0, through_zero.c1, list(through_zero.binding_rows)) == (0.0, 2.0, [2])
    alone = smoothness([5.0], [3.0])
    assert (alone.c0 + 3 * alone.c1, alone.slack) == (5.0, 0.0)
    assert smoothness(torch.tensor([-1.0]), [1]).c0 == 0.0


@pytest.mark.parametrize(
    ("curvature", "x", "words"),
    [
        ([1.0], [1.0, 2.0], "one number a row"),
        ([], [], "no rows"),
        ([1.0, math.nan], [1.0, 2.0], "curvature is nan in row 1"),
        ([1.0, 2.0], [math.inf, 2.0], "x is inf in row 0"),
        ([1.0, 2.0], [1.0, -2.0], "x is negative in row 1"),
    ],
)
def test_smoothness_refuses(curvature, x, words):
    with pytest.raises(ValueError, match=words):
        smoothness(curvature, x)


# -- trajectories ----------------------------------------------------------------------------------------------------

GOOD = {
    "inner": [1.0, 0.5],
    "loss": [2.0, 1.0],
    "final_loss": [0.5, 0.5],
    "infimum": 0.0,
    "grad_norm": [1.0, 1.0],
    "distance": [1.0, 0.5],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": [2.0]}, "unequal lengths .*loss 1"),
        ({"infimum": [0.0, 0.0, 0.0]}, "unequal lengths .*infimum 3"),
        ({"loss": [[2.0, 1.0]]}, r"loss must have one number a step, not the shape \(1, 2\)"),
        ({"loss": 2.0}, "loss must have one number a step"),
        ({"inner": [1.0, math.nan]}, "inner is nan at step 20: "),
        ({"loss": [math.inf, 1.0]}, "loss is inf at step 10: "),
        ({"infimum": -math.inf}, r"infimum is -inf at step 10: .*\(1 more"),
        ({"loss": [2.0, -0.1]}, "^loss is below the infimum at step 20: pass a smaller infimum$"),
        ({"final_loss": [-0.1, 0.5]}, "final_loss is below the infimum at step 10"),
        ({"grad_norm": [1.0, -1.0]}, "grad_norm is negative at step 20"),
        ({"distance": [-1.0, 1.0]}, "distance is negative at step 10"),
        ({"steps": [1, 2, 3]}, "steps labels rows, of which there are 2"),
        ({"steps": [1, 2.5]}, "steps must be integers"),
        ({"rounding": -1.0}, "rounding is a relative error"),
        ({name: [] for name in GOOD} | {"steps": None}, "the trajectory has no steps"),
        (
            {"inner": [0.0, 0.0], "loss": [0.5, 0.5], "distance": [0.0, 0.0]},
            "every step of the trajectory is its own end point x_K",
        ),
    ],
)
def test_trajectories_that_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        Trajectory(**({"steps": [10, 20]} | GOOD | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [["a", "b"], [1.0, [2.0]], [1j, 2j], None])
def test_fields_that_hold_no_numbers(value):
    with pytest.raises(TypeError, match="loss holds no real numbers"):
        Trajectory(**(GOOD | {"loss": value}))


def test_what_a_trajectory_accepts():
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in GOOD.items()}
    from_tensors = Trajectory(**tensors)
    lists = Trajectory(**(GOOD | {"loss": [torch.tensor(2.0, requires_grad=True), torch.tensor(1.0)]}))
    half = Trajectory(**(GOOD | {"loss": torch.tensor([2.0, 1.0], dtype=torch.bfloat16)}))
    for t in (from_tensors, lists, half, Trajectory(*GOOD.values())):
        assert t.loss.dtype == np.float64
        np.testing.assert_array_equal(t.loss, GOOD["loss"])
        np.testing.assert_array_equal(t.infimum, [0.0, 0.0])
        np.testing.assert_array_equal(t.steps, [0, 1])
        assert len(t) == 2
    assert half.rounding > from_tensors.rounding == lists.rounding == 2.0**-23
    assert Trajectory(*GOOD.values()).rounding < 1e-15
    with pytest.raises(ValueError, match="read-only"):
        from_tensors.loss[0] = 3.0
    loss = np.array([2.0, 1.0])
    kept = Trajectory(**(GOOD | {"loss": loss}))
    loss[0] = 7.0
    assert kept.loss[0] == 2.0
    rounded = (
        Trajectory(**(GOOD | {"loss": [2.0, -1e-9], "infimum": [0.0, 0.0], "final_loss": [0.5, 1e-3]})) if 0 else t
    )
    assert rounded.excess[0] == 0.5


def test_losses_may_be_below_the_infimum_by_rounding():
    infimum = np.nextafter(np.float32(0.5), np.float32(1))
    t = Trajectory(**(GOOD | {"infimum": infimum}))
    assert (t.excess == 0).all()
    assert alpha_beta(t, 0.1).beta == 0
    above = Trajectory(**(GOOD | {"infimum": np.nextafter(0.5, 0), "inner": [1.0, -0.5]}))
    assert alpha_beta(above).beta == math.inf
    assert not alpha_beta(above).vacuous


def test_a_single_step():
    t = Trajectory([1.0], [2.0], [0.5], 0.0, [1.0], [1.0], steps=[7])
    assert alpha_beta(t, 1.0).beta == pytest.approx(1.0)
    assert alpha_beta(t, 1.0).binding_step == 7
    assert polyak_lojasiewicz(t).value == pytest.approx(1 / 3)
    assert describe(t).startswith("one step only (step 7); alpha-beta holds with beta = 0 at gap 0.1 (vacuous: ")


def test_concatenated_runs_satisfy_what_each_does():
    rng = np.random.default_rng(19)
    runs = [random_trajectory(rng, 50) for _ in range(4)]
    joint = Trajectory.concatenate(runs)
    assert len(joint) == 200
    found = alpha_beta(joint, 0.5)
    each = [alpha_beta(run, 0.5) for run in runs]
    assert found.beta == max(one.beta for one in each)
    worst = int(np.argmax([one.beta for one in each]))
    assert found.binding_step == each[worst].binding_step
    assert found.binding_row == 50 * worst + each[worst].binding_row
    assert quasar_convexity(joint).value == min(quasar_convexity(run).value for run in runs)
    joint = Trajectory.concatenate(iter(runs))
    assert len(quasar_convexity(joint).per_step) == len(joint) == 200
    with pytest.raises(ValueError, match="no trajectory"):
        Trajectory.concatenate([])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: alpha_beta(t, 0.0), "gap must be positive"),
        (lambda t: alpha_beta(t, math.nan), "gap must be positive"),
        (lambda t: alpha_beta(t, math.inf), "gap must be positive"),
        (lambda t: alpha_beta(t, quantile=0.0), "quantile is the share"),
        (lambda t: alpha_beta(t, quantile=1.1), "quantile is the share"),
        (lambda t: alpha_beta_frontier(t, [0.1, -1.0]), "gap must be positive"),
        (lambda t: admissible(t, math.inf, math.inf), "must be finite"),
        (lambda t: violated(t, 1.0, math.nan), "must be finite"),
        (lambda t: margins(t, [], [1.0]), "alphas must be a finite vector"),
        (lambda t: margins(t, [1.0], [math.nan]), "betas must be a finite vector"),
        (lambda t: aiming(t, "start"), 'the reference is "final" or "infimum"'),
        (lambda t: restricted_secant(t, "start"), 'the reference is "final" or "infimum"'),
        (lambda t: toys.two_minima().values([1.0, 2.0]), r"shape \(m, 2\)"),
    ],
)
def test_arguments_that_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(Trajectory(**GOOD))


def test_words():
    away = np.where(np.arange(200) <= 40, -1.0, 1.0)
    t = Trajectory(away, [2.0] * 200, [0.5] * 200, 0.1, [1.0] * 200, [1.0] * 200, steps=10 * np.arange(200))
    line = describe(t, 0.2)
    assert "\n" not in line
    assert "alpha-beta holds with beta = 3.25 at gap 0.2 (vacuous: " in line
    assert "99 % of steps: beta = 3.25" in line
    assert "PL holds with mu = 0.333" in line
    assert "aiming fails at steps 0-400;" in line
    assert "error bound holds with mu = 1" in line
    scattered = Trajectory(**(_fields(t) | {"inner": np.where(np.arange(200) % 10 == 0, -1.0, 1.0)}))
    assert "aiming fails at steps 0, 10, 20 and 17 more in 17 ranges" in describe(scattered)
    fits = Trajectory([1.0, -0.1], [1.0, 0.5], [0.0, 0.0], 0.0, [1.0, 1.0], [1.0, 1.0])
    assert describe(fits).startswith("alpha-beta fails at gap 0.1: no beta works at step 1; PL holds")
    fine = Trajectory([1.0], [1.0], [0.0], 0.0, [1.0], [1.0])
    assert "alpha-beta holds with beta = 0 at gap 0.1; least beta / (alpha - beta) = 0 at gap 1; PL" in describe(fine)


def _fields(t):
    return {name: getattr(t, name) for name in GOOD}


def test_a_million_steps():
    rng = np.random.default_rng(0)
    rows = 1_000_000
    final = 0.1 * rng.random(rows)
    loss = final + rng.random(rows)
    g, d = rng.exponential(size=rows), rng.random(rows)
    t = Trajectory(g * d * rng.uniform(-0.2, 1, rows), loss, final, 0.0, g, d)
    assert math.isfinite(alpha_beta(t).beta)
    assert best_ratio(t).ratio <= alpha_beta(t, 5.0).ratio
    assert len(alpha_beta_frontier(t, [0.1, 1.0])) == 2
    assert margins(t, [1.0, 2.0], [0.5, 0.7, 1.0]).shape == (2, 3)
    assert smoothness(loss, g).slack >= 0
    assert "alpha-beta holds" in describe(t)


def test_several_rows_of_one_step_are_one_step_in_words() -> None:
    steps = np.repeat(np.arange(5), 3)
    assert ranges(steps, np.array([0, 2])) == "step 0"
    assert ranges(steps, np.array([0, 4, 5, 12])) == "steps 0-1, 4"
    assert ranges(np.array([0, 1, 2, 0, 1, 2]), np.array([1, 2, 3])) == "steps 1-2, 0"
