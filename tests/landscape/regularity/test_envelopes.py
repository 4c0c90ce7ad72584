"""Envelopes of lines."""

from __future__ import annotations

import numpy as np
import pytest

from landscape.regularity.envelopes import lower_envelope, lowest_point


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
