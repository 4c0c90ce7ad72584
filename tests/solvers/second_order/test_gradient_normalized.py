"""Newton by gradient-normalised smoothness against a plain reference."""

import numpy as np
import pytest
import torch
from newton_cases import PROBLEMS, check_step_by_step, network, regularised_step

from landscape import GaussNewton, MatrixOperator
from solvers import GradientNormalizedNewton


def gradient_normalised_reference(fgh, w, gamma, approximation=None):
    while True:
        f, g, H = fgh(w)
        H = H if approximation is None else approximation(w)
        while True:
            h, lam = regularised_step(g, H, np.linalg.norm(g) / gamma)
            f_new, g_new = fgh.f(w + h), fgh.g(w + h)
            if f - f_new >= g_new @ g_new / (8 * lam):
                gamma *= 2
                break
            gamma /= 2
        w = w + h
        yield w, gamma


CASES = {
    "gradient-normalised": (
        lambda p: GradientNormalizedNewton(p),
        lambda fgh, w: gradient_normalised_reference(fgh, w, 1.0),
    )
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name)


def test_a_matrix_of_the_users_own():
    problem = network()
    G = GaussNewton(problem.objective)
    at = lambda w: dense(problem, w)  # noqa: E731
    solver = GradientNormalizedNewton(problem.parameters, curvature=lambda: G)
    krylov = network()
    twin = GradientNormalizedNewton(krylov.parameters, curvature=lambda: GaussNewton(krylov.objective), krylov=17)
    path = gradient_normalised_reference(problem.fgh, problem.flat(), 1.0, at)
    for _ in range(8):
        w, gamma = next(path)
        solver.step(problem.closure)
        twin.step(krylov.closure)
        np.testing.assert_allclose(problem.flat(), w, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(krylov.flat(), w, rtol=1e-5, atol=1e-6)
        assert solver.param_groups[0]["gamma"] == gamma
        assert solver.last.lowest > -1e-12
    wrong = GradientNormalizedNewton(problem.parameters, curvature=lambda: MatrixOperator(torch.eye(3).double()))
    with pytest.raises(ValueError, match="of size 3"):
        wrong.step(problem.closure)
    tight = MatrixOperator(torch.eye(17).double(), memory=1000)
    with pytest.raises(MemoryError, match="needs 1,224 bytes, the budget is 1,000"):
        GradientNormalizedNewton(problem.parameters, curvature=lambda: tight, krylov=5).step(problem.closure)


def dense(problem, w):
    with problem.objective.at(torch.tensor(w)):
        return GaussNewton(problem.objective).to_dense().numpy()
