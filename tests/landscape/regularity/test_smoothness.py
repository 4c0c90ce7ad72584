"""Envelopes of curvature against linear programming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from landscape.regularity import smoothness


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
