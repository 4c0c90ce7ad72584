"""Function classes in words."""

from __future__ import annotations

import numpy as np
from regularity_cases import fields

from landscape.regularity import Trajectory, describe
from landscape.regularity.summary import ranges


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
    scattered = Trajectory(**(fields(t) | {"inner": np.where(np.arange(200) % 10 == 0, -1.0, 1.0)}))
    assert "aiming fails at steps 0, 10, 20 and 17 more in 17 ranges" in describe(scattered)
    fits = Trajectory([1.0, -0.1], [1.0, 0.5], [0.0, 0.0], 0.0, [1.0, 1.0], [1.0, 1.0])
    assert describe(fits).startswith("alpha-beta fails at gap 0.1: no beta works at step 1; PL holds")
    fine = Trajectory([1.0], [1.0], [0.0], 0.0, [1.0], [1.0])
    assert "alpha-beta holds with beta = 0 at gap 0.1; least beta / (alpha - beta) = 0 at gap 1; PL" in describe(fine)


def test_several_rows_of_one_step_are_one_step_in_words() -> None:
    steps = np.repeat(np.arange(5), 3)
    assert ranges(steps, np.array([0, 2])) == "step 0"
    assert ranges(steps, np.array([0, 4, 5, 12])) == "steps 0-1, 4"
    assert ranges(np.array([0, 1, 2, 0, 1, 2]), np.array([1, 2, 3])) == "steps 1-2, 0"
