"""The other conditions: constants of a quadratic, and what they skip."""

from __future__ import annotations

import math

import numpy as np
import pytest
from regularity_cases import made, quadratic

from landscape.regularity import (
    Trajectory,
    aiming,
    angles,
    error_bound,
    kurdyka_lojasiewicz,
    polyak_lojasiewicz,
    quadratic_growth,
    quasar_convexity,
    restricted_secant,
    star_convexity,
)


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
