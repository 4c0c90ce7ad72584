"""Points by blocks and by graphs, and closures that fail at trial points."""

import numpy as np
import pytest
import torch
from newton_cases import logistic, quadratic

from solvers import CubicNewton, GradientNormalizedNewton, GradientRegularizedNewton, LazyCubicNewton, SaddleFreeNewton


def test_a_model_that_knows_its_blocks_needs_no_products():
    for make in (CubicNewton, LazyCubicNewton, GradientRegularizedNewton, GradientNormalizedNewton, SaddleFreeNewton):
        blocks, graph = logistic(), logistic()
        first, second = make(blocks.parameters), make(graph.parameters)
        for _ in range(6):
            first.step(blocks.closure)
            second.step(graph.closure.__call__)
            np.testing.assert_allclose(blocks.flat(), graph.flat(), rtol=1e-8, atol=1e-10)
            assert first.last.products == 0
        assert second.last.lowest == pytest.approx(first.last.lowest, abs=1e-10)


@pytest.mark.parametrize("where", ["the loss", "the gradient"])
def test_a_closure_that_raises_at_a_trial_point(where):
    problem = quadratic()
    before = problem.flat()

    def closure():
        if not np.array_equal(problem.flat(), before) and torch.is_grad_enabled() == (where == "the gradient"):
            raise KeyboardInterrupt
        return problem.closure()

    with pytest.raises(KeyboardInterrupt):
        GradientNormalizedNewton(problem.parameters).step(closure)
    np.testing.assert_array_equal(problem.flat(), before)
