"""Cubic Newton with a lazy Hessian against a plain reference."""

import pytest
from newton_cases import PROBLEMS, check_step_by_step, cubic_reference, network

from solvers import LazyCubicNewton

CASES = {
    **{
        f"lazy cubic {rule}": (
            lambda p, rule=rule: LazyCubicNewton(p, 2.0, rule=rule, period=4),
            lambda fgh, w, rule=rule: cubic_reference(fgh, w, 2.0, rule, period=4),
        )
        for rule in ("doubling", "ratio", "fixed")
    }
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name, fresh=False)


def test_a_lazy_hessian_is_made_once_in_a_period():
    problem = network()
    solver = LazyCubicNewton(problem.parameters, period=4)
    products = []
    for _ in range(9):
        solver.step(problem.closure)
        products.append(solver.last.products)
    assert products == [17, 0, 0, 0, 17, 0, 0, 0, 17]
