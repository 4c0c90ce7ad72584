"""Gradient-regularised Newton against a plain reference."""

import math

import numpy as np
import pytest
from newton_cases import PROBLEMS, check_step_by_step, quadratic, regularised_step

from solvers import GradientRegularizedNewton


def gradient_regularised_reference(fgh, w, constant, rule):
    before = None
    while True:
        f, g, H = fgh(w)
        size = np.linalg.norm(g)
        if rule == "adaptive" and before is not None:
            g_old, H_old, dx = before
            constant = max(constant / 2, np.linalg.norm(g - g_old - H_old @ dx) / (dx @ dx))
        if rule == "line-search":
            constant /= 2
        own = constant
        while True:
            lam = constant * size if rule == "super-universal" else math.sqrt(constant * size)
            h, lam = regularised_step(g, H, lam)
            f_new, g_new = fgh.f(w + h), fgh.g(w + h)
            r = np.linalg.norm(h)
            if rule == "line-search":
                if f_new <= f - 2 / 3 * lam * r**2 and np.linalg.norm(g_new) <= 2 * lam * r:
                    break
                constant *= 2
            elif rule == "super-universal":
                if -g_new @ h >= g_new @ g_new / (4 * lam):
                    constant = max(constant / 4, 1e-5)
                    break
                constant *= 4
            elif np.linalg.eigvalsh(H)[0] > -1e-14 or f_new <= f:  # indefinite: f must not rise
                constant = own
                break
            else:
                constant *= 2
        before = (g, H, h)
        w = w + h
        yield w, constant


CASES = {
    **{
        f"gradient-regularised {rule}": (
            lambda p, rule=rule: GradientRegularizedNewton(p, 0.3, rule=rule),
            lambda fgh, w, rule=rule: gradient_regularised_reference(fgh, w, 0.3, rule),
        )
        for rule in ("adaptive", "line-search", "super-universal", "fixed")
    }
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    # an estimate of the Lipschitz constant amplifies rounding as steps get short
    check_step_by_step(*CASES[case], name, rel=1e-2 if case.endswith("adaptive") else 1e-6)


def test_the_adaptive_constant_of_a_quadratic_only_falls():
    problem = quadratic()
    solver = GradientRegularizedNewton(problem.parameters, 8.0)
    for k in range(5):
        solver.step(problem.closure)
        assert solver.last.used == pytest.approx(8.0 / 2**k)
