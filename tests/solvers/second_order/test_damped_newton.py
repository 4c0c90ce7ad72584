"""Damped Newton against a plain reference."""

import math

import numpy as np
import pytest
from newton_cases import PROBLEMS, check_step_by_step, double_well, quadratic

from solvers import DampedNewton


def damped_reference(fgh, w, L, rule, q=3.0, floor=1e-3):
    while True:
        f, g, H = fgh(w)
        values = np.linalg.eigvalsh(H)
        if values[0] <= len(g) * 2.3e-16 * values.max():
            H = H + (floor * np.abs(values).max() - values[0]) * np.eye(len(g))
        n = np.linalg.solve(H, g)
        G = math.sqrt(g @ n)
        constant = L
        while True:
            if rule == "aicn":
                alpha = (math.sqrt(1 + 2 * constant * G) - 1) / (constant * G)
            else:
                alpha = 1 / (1 + (9 * constant) ** (1 / (q - 1)) * G ** ((q - 2) / (q - 1)))
            if values[0] > -1e-14 or fgh.f(w - alpha * n) <= f:  # indefinite: f must not rise
                break
            constant *= 2
        w = w - alpha * n
        yield w, L


CASES = {
    "damped aicn": (lambda p: DampedNewton(p, 5.0), lambda fgh, w: damped_reference(fgh, w, 5.0, "aicn")),
    **{
        f"damped root {q:g}": (
            lambda p, q=q: DampedNewton(p, 0.5, rule="root", q=q),
            lambda fgh, w, q=q: damped_reference(fgh, w, 0.5, "root", q=q),
        )
        for q in (2.5, 3.0, 4.0)
    },
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name)


def test_an_indefinite_hessian_is_said_and_the_loss_does_not_rise():
    """Beside a saddle the shifted Hessian makes a step of 100 along the valley's ridge, where f is 1e8."""
    p, closure = double_well(0.3, 1e-4)
    solver = DampedNewton([p], 1e-6, floor=1e-6)
    solver.step(closure)
    assert solver.last.indefinite
    assert solver.last.lowest == pytest.approx(-2.0, rel=1e-6)
    assert solver.last.shift > 2.0
    assert solver.last.tries > 1
    assert solver.last.accepted
    assert solver.last.new_loss <= solver.last.loss
    assert solver.param_groups[0]["L"] == 1e-6  # of that step alone


def test_a_convex_loss_is_not_indefinite():
    problem = quadratic()
    solver = DampedNewton(problem.parameters, 1.0)
    solver.step(problem.closure)
    assert not solver.last.indefinite
    assert solver.last.shift == 0.0
    assert solver.last.tries == 1
