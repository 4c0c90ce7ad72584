"""Huber's line: exact points, points far off, the error that many draws show, and what scikit-learn finds."""

import numpy as np
import pytest
from sklearn.linear_model import HuberRegressor

from landscape.regularity import huber_line


def test_exact_points():
    found = huber_line([0.0, 1.0, 4.0], [1.0, 3.0, 9.0])
    assert (found.slope, found.intercept, found.r_squared, found.points) == pytest.approx((2.0, 1.0, 1.0, 3))
    assert huber_line([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]).slope == pytest.approx(0.0)


def test_points_far_off():
    rng, slopes, errors = np.random.default_rng(0), [], []
    x = rng.uniform(0, 1, 100)
    for _ in range(100):
        y = 2 + 3 * x + 0.1 * rng.standard_normal(100)
        y[:5] += 5
        found = huber_line(x, y)
        slopes.append(found.slope)
        errors.append(found.stderr)
    assert np.mean(slopes) == pytest.approx(3.0, abs=0.05)
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.25)
    other = HuberRegressor(epsilon=1.345, alpha=0.0).fit(x[:, None], y)
    assert found.slope == pytest.approx(other.coef_[0], abs=0.02)
    assert found.intercept == pytest.approx(other.intercept_, abs=0.02)
    assert found.r_squared < 0.6  # over all points alike


@pytest.mark.parametrize(("x", "y"), [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [1.0, 2.0]), ([1, 2, 3], [1])])
def test_no_line(x, y):
    with pytest.raises(ValueError, match="of one length, 3 at least"):
        huber_line(x, y)
