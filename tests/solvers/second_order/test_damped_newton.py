"""Damped Newton against a plain reference."""

import math

import numpy as np
import pytest
from newton_cases import PROBLEMS, check_step_by_step

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
