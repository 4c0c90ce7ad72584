"""Cubic Newton against a plain reference, and where the gradient says nothing."""

import pytest
from newton_cases import PROBLEMS, check_step_by_step, cubic_reference, double_well, generator, logistic

from solvers import CubicNewton

CASES = {
    **{
        f"cubic {rule}": (
            lambda p, rule=rule: CubicNewton(p, 2.0, rule=rule),
            lambda fgh, w, rule=rule: cubic_reference(fgh, w, 2.0, rule),
        )
        for rule in ("doubling", "ratio", "fixed")
    }
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name)


@pytest.mark.parametrize("krylov", [False, True])
def test_a_saddle_is_left_from_its_very_point(krylov):
    p, closure = double_well(0.0, 0.0)
    solver = CubicNewton([p], krylov=krylov, generator=generator())
    solver.step(closure)
    assert solver.last.hard_case
    assert solver.last.lowest == pytest.approx(-2.0)
    for _ in range(30):
        solver.step(closure)
    assert float(closure().detach()) == pytest.approx(-0.25, abs=1e-8)


def test_the_doubling_rule_keeps_its_promise():
    problem = logistic()
    solver = CubicNewton(problem.parameters, 1e-3)
    for _ in range(30):
        solver.step(problem.closure)
        last = solver.last
        if last.stalled:
            break
        assert last.accepted
        assert last.loss - last.new_loss >= last.decrease >= last.used / 12 * last.length**3 * (1 - 1e-9)
        assert last.shift == pytest.approx(last.used / 2 * last.length)
        assert last.lowest + last.shift >= -1e-12
    assert last.gradient_norm < 1e-6
