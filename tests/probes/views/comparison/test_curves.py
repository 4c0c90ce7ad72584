"""Curves of runs on one axis: against scipy, brute force and closed forms."""

import numpy as np
import pytest
from scipy import stats

from probes.views.comparison.curves import against_loss, average, curve, first_passage, loss_levels, sample, shared_grid


def test_a_curve_is_sorted_finite_and_without_repeats():
    line = curve(np.array([3, 1, 2, 2, 4, np.nan]), np.array([30.0, 10, 20, 40, np.inf, 1]))
    assert line.x.tolist() == [1, 2, 3]
    assert line.y.tolist() == [10, 30, 30]
    assert line.dropped == 2
    assert len(curve(np.empty(0), np.empty(0)).x) == 0


def test_a_curve_ends_where_its_run_did():
    line = curve(np.array([10, 20]), np.array([1.0, 3.0]))
    values = sample(line, np.array([9, 10, 12.5, 20, 21]))
    np.testing.assert_array_equal(values, [np.nan, 1, 1.5, 3, np.nan])
    assert np.isnan(sample(curve(np.empty(0), np.empty(0)), np.array([1.0]))).all()


def test_mean_and_standard_error_are_scipys():
    rng = np.random.default_rng(0)
    x = np.arange(7.0)
    values = rng.normal(size=(5, 7))
    found = average([curve(x, y) for y in values], x)
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    np.testing.assert_allclose(found.stderr, stats.sem(values, axis=0))
    assert found.runs.tolist() == [5] * 7


def test_runs_count_only_where_they_have_been():
    short, long = curve(np.arange(3), np.zeros(3)), curve(np.arange(5), np.full(5, 2.0))
    found = average([short, long], np.arange(6.0))
    assert found.runs.tolist() == [2, 2, 2, 1, 1, 0]
    np.testing.assert_array_equal(found.mean, [1, 1, 1, 2, 2, np.nan])
    np.testing.assert_allclose(found.stderr, [1, 1, 1, np.nan, np.nan, np.nan])


def test_steps_that_do_not_coincide():
    grid = shared_grid([curve(np.array([0, 10]), np.zeros(2)), curve(np.array([0, 4]), np.zeros(2))], 100)
    assert grid.tolist() == [0, 4, 10]
    many = shared_grid([curve(np.arange(1000), np.zeros(1000))], 20)
    assert len(many) == 20
    assert (many[0], many[-1]) == (0, 999)


def brute_first_passage(steps, loss, level):
    """By walking along the run in small steps."""
    fine = np.linspace(steps[0], steps[-1], 200_001)
    below = np.interp(fine, steps, loss) <= level
    return fine[np.argmax(below)] if below.any() and level <= loss[0] else np.nan


def test_first_passage_of_a_loss_that_goes_up_and_down():
    rng = np.random.default_rng(1)
    steps = np.cumsum(rng.integers(1, 5, size=40)).astype(float)
    loss = np.exp(-np.arange(40) / 15) + 0.3 * rng.normal(size=40) ** 2
    levels = np.linspace(loss.min() - 0.1, loss[0] + 0.1, 50)
    found = first_passage(steps, loss, levels)
    expected = np.array([brute_first_passage(steps, loss, level) for level in levels])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.isfinite(found).sum() > 30


def test_first_passage_at_the_edges():
    steps, loss = np.array([0, 10, 20]), np.array([4.0, 2.0, 2.0])
    np.testing.assert_array_equal(first_passage(steps, loss, np.array([5, 4, 3, 2, 1.9])), [np.nan, 0, 5, 10, np.nan])
    np.testing.assert_array_equal(
        first_passage(np.array([7]), np.array([1.0]), np.array([0.5, 1, 2])), [np.nan, 7, np.nan]
    )
    np.testing.assert_array_equal(first_passage(np.arange(2), np.array([np.nan, np.inf]), np.array([1.0])), [np.nan])
    # a row without a loss is no row: the line goes from its neighbour to its neighbour
    assert first_passage(np.arange(3), np.array([2, np.nan, 0.0]), np.array([1.0])).tolist() == [1]


def test_a_quantity_that_is_a_function_of_the_loss_is_found_again():
    """y = loss^2 measured at other steps than the loss, on a run that climbs in between."""
    steps = np.arange(0, 301)
    loss = np.where(
        steps < 100, 3 - steps / 100, np.where(steps < 200, 2 + (steps - 100) / 200, 2.5 - (steps - 200) / 50)
    )
    line = curve(steps[::2], loss[::2] ** 2)
    levels = np.linspace(0.6, 3, 25)
    found = against_loss(line, steps, loss, levels)
    assert len(found.x) == 25
    np.testing.assert_allclose(found.y, levels**2, atol=0.01)
    late = curve(np.array([150, 300]), np.array([1.0, 2.0]))  # measured from step 150 on: only what was reached then
    assert against_loss(late, steps, loss, levels).x.max() < 2.0


def test_levels_span_the_runs():
    levels = loss_levels([np.array([4, 1, 0.5]), np.array([2.0, 0.1, np.nan])], 10)
    assert len(levels) == 10
    assert (levels[0], levels[-1]) == (0.1, 4)
    np.testing.assert_allclose(np.diff(np.log(levels)), np.log(40) / 9)
    assert loss_levels([np.array([1.0, -1.0])], 5).tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert len(loss_levels([np.array([np.nan])], 5)) == 0
    assert loss_levels([np.array([1.0, 1.0])], 5).tolist() == [1]
