"""Gradient-regularised Newton against a plain reference."""

import math

import numpy as np
import pytest
import torch
from newton_cases import PROBLEMS, check_step_by_step, quadratic, regularised_step

from solvers import GradientRegularizedNewton
from solvers.second_order.gradient_regularized import LineSearch, SuperUniversal
from solvers.second_order.trial_point import Move


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


class Seen:
    """A point at which f = 1, g = (1, 0), with f+ and g+ as a test wants them."""

    loss, eps, g = 1.0, 2.2e-16, torch.tensor([1.0, 0.0], dtype=torch.float64)

    def __init__(self, after):
        self.after = torch.tensor(after, dtype=torch.float64)

    def gradient_after(self):
        return self.after


def test_each_condition_of_the_line_search_decides():
    """lam = 2 and ||h|| = 0.5: f must fall by 1/3 and ||g+|| be at most 2."""
    move = Move(torch.tensor([-0.5, 0.0], dtype=torch.float64), 0.4, 1.0, 2, shift=2.0)
    for new, after, accepted in ((0.6, 1.0, True), (0.7, 1.0, False), (0.6, 2.1, False), (0.667, 0.0, False)):
        found, following = LineSearch().judge(Seen([after, 0.0]), move, new, 3.0)
        assert (found, following) == (accepted, 3.0 if accepted else 6.0)


def test_a_shorter_step_may_leave_its_part_of_the_gradient():
    """lr = 1/2 of the step leaves g / 2 even where the model is exact: 1/2 is no error of it."""
    move = Move(torch.tensor([-0.5, 0.0], dtype=torch.float64), 0.4, 1.0, 2, shift=2.0).scaled(0.5, Seen.g)
    assert float(move.h.norm()) == 0.25
    needed = (1 / 0.5 - 0.5 / 3) * 2.0 * 0.25**2
    for off, accepted in ((0.0, True), (0.99, True), (1.01, False)):
        assert LineSearch().judge(Seen([0.5, off]), move, 1.0 - 1.01 * needed, 1.0)[0] == accepted
    assert not LineSearch().judge(Seen([0.5, 0.0]), move, 1.0 - 0.99 * needed, 1.0)[0]
    assert SuperUniversal().judge(Seen([0.0, 0.0]), move, 1.0, 1.0)[0] is False  # it went the wrong way
    assert SuperUniversal().judge(Seen([1.0, 0.0]), move, 1.0, 1.0)[0]
