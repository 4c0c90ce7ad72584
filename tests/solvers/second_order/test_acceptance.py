"""Rules of acceptance where differences of losses are rounding."""

import numpy as np
from newton_cases import logistic

from solvers import CubicNewton, GradientNormalizedNewton, SaddleFreeNewton


def test_rounding_is_left_to_the_gradient():
    for make in (CubicNewton, SaddleFreeNewton, GradientNormalizedNewton):
        problem = logistic()
        solver = make(problem.parameters)
        for _ in range(25):
            solver.step(problem.closure)
        assert solver.last.stalled
        assert np.linalg.norm(problem.fgh(problem.flat())[1]) < 1e-9
        constant = solver.last.M
        solver.step(problem.closure)
        assert constant == solver.last.M
