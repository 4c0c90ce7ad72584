"""The alpha-beta condition: its frontier and best ratio against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from regularity_cases import GAPS, made, quadratic, random_trajectory
from scipy.optimize import linprog

from landscape.regularity import (
    Trajectory,
    admissible,
    alpha_beta,
    alpha_beta_frontier,
    best_ratio,
    describe,
    margins,
    smoothness,
    violated,
)


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
            betas = np.array([_least_beta(t, k, 0.2) for k in range(rows)])
            out = math.floor((1 - quantile) * rows + 1e-9)
            kept = np.argsort(betas, kind="stable")[: rows - min(out, rows - 1)]
            by_hand = alpha_beta(t.select(kept), 0.2)
            assert found.beta == by_hand.beta
            assert found.left_out == rows - len(kept)
    assert alpha_beta(t, 0.2, quantile=1e-9).left_out == rows - 1


def _least_beta(t, k, gap):
    lack = gap * t.drop[k] - t.inner[k]
    return lack / t.excess[k] if t.excess[k] > 0 else math.copysign(math.inf, lack)


def test_violated_and_margins_by_hand():
    rng = np.random.default_rng(11)
    t = random_trajectory(rng, 4000)
    alphas, betas = np.linspace(-1, 6, 23), rng.permutation(np.linspace(0, 5, 37))
    T = t.inner - alphas[:, None, None] * t.drop + betas[:, None] * (t.drop + t.excess)
    np.testing.assert_allclose(margins(t, alphas, betas), T.min(axis=-1), rtol=1e-12, atol=1e-12)
    turned = t.inner - betas[:, None, None] * t.drop + alphas[:, None] * (t.drop + t.excess)  # more alphas than betas
    np.testing.assert_allclose(margins(t, betas, alphas), turned.min(axis=-1), rtol=1e-12, atol=1e-12)
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


def test_best_ratio_against_a_dense_scan():
    rng = np.random.default_rng(13)
    gaps = np.geomspace(1e-4, 1e6, 2000)
    for trial in range(300):
        t = random_trajectory(rng, interpolated=0.2 if trial % 3 == 0 else 0.0)
        best = best_ratio(t)
        lack, E = gaps * t.drop[:, None] - t.inner[:, None], t.excess[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            betas = np.where(E > 0, lack / E, np.where(lack > 0, math.inf, 0.0))
        scan = np.maximum(0.0, betas.max(axis=0)) / gaps
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
    assert best.vacuous
    # the same beside a row that no beta changes: not every f_k(x_K) > f_k^*
    best = best_ratio(made([-1.0, 1.0], [2.0, 0.0], [1.0, 0.0]))
    assert (best.gap, best.ratio, best.binding_step, best.vacuous) == (math.inf, 2.0, 0, False)
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
