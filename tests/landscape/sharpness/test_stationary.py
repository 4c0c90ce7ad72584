"""The certificate of a second-order stationary point against dense matrices."""

import math

import pytest
import torch
from sharpness_cases import normal, positive, quadratic
from torch import nn

from landscape import FiniteDifferenceHessian, Objective
from landscape.sharpness import second_order_stationary
from solvers import CubicNewton


def with_lowest(n, lowest, seed=0):
    """Eigenvalues `lowest` once and the others in [0.5, 2]."""
    U = torch.linalg.eigh(positive(n, seed)).eigenvectors
    values = torch.linspace(0.5, 2.0, n, dtype=torch.float64)
    values[0] = lowest
    A = (U * values) @ U.T
    return 0.5 * (A + A.T)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("lowest", [-0.3, -1e-3, 0.0, 0.2])
def test_a_quadratic(lowest):
    A, theta = with_lowest(60, lowest), 0.01 * normal(60)
    found = second_order_stationary(quadratic(A, theta), generator=generator())
    assert found.gradient_norm == pytest.approx(float((A @ theta).norm()))
    assert found.norm == pytest.approx(2.0, rel=1e-2)
    assert found.confirmed
    assert lowest - 1e-12 <= found.lambda_min <= lowest + found.error
    assert found.bound <= lowest
    assert 0 < found.error < 1e-3
    assert float((A @ found.direction - found.lambda_min * found.direction).norm()) <= found.residual + 1e-12
    assert found.holds(1.0, max(0.0, -lowest) + 1e-3)
    assert found.holds(1.0, 0.0) == (lowest > 0)
    assert not found.holds(0.5 * found.gradient_norm, 10.0)


def test_what_was_not_settled_does_not_hold():
    A = positive(200, low=1e-3)
    found = second_order_stationary(quadratic(A, 0 * normal(200)), max_matvecs=4, generator=generator())
    assert not found.confirmed
    assert found.error == math.inf
    assert found.bound == -math.inf
    assert not found.holds(1.0, 100.0)
    assert found.lambda_min >= 1e-3  # it can still refute
    assert "not confirmed" in str(found)


def test_seeds_bound_what_is_missed():
    """The gradient does not point along the lowest eigenvector, and no start is given: random ones find it."""
    A = with_lowest(150, -1e-2, seed=3)
    objective = quadratic(A, 0 * normal(150))
    for seed in range(5):
        found = second_order_stationary(objective, tol=1e-3, generator=generator(seed))
        assert found.seed == seed
        assert abs(found.lambda_min + 1e-2) <= found.error
        assert found.holds(0.0, 0.015)
        assert not found.holds(0.0, 0.009)


class Well(nn.Module):
    """x^2 - y^2 + y^4: a saddle at 0, minima at y = +-1/sqrt(2)."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor([0.0, 1e-4], dtype=torch.float64))

    def forward(self, _):
        return self.p[0] ** 2 - self.p[1] ** 2 + self.p[1] ** 4


def test_where_cubic_newton_ends():
    model, data = Well(), (torch.zeros(1, 1), torch.zeros(1))
    objective = Objective(model, lambda f, _: f, data, count=lambda *_: 1.0)
    start = second_order_stationary(objective, generator=generator())
    assert start.gradient_norm < 1e-3
    assert start.lambda_min == pytest.approx(-2.0, abs=1e-6)
    assert not start.holds(1e-3, 0.1)  # a saddle: the gradient alone would have said yes
    assert start.direction.abs().tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    solver = CubicNewton(model.parameters())
    for _ in range(20):
        solver.step(lambda: model(None))
    end = second_order_stationary(objective, generator=generator())
    assert end.holds(1e-6, 0.0)
    assert end.lambda_min == pytest.approx(2.0, abs=1e-6)
    rough = second_order_stationary(
        objective, tol=1e-3, operator=FiniteDifferenceHessian(objective), generator=generator()
    )
    assert rough.lambda_min == pytest.approx(2.0, abs=rough.error)


def test_bad_thresholds():
    found = second_order_stationary(quadratic(positive(6), normal(6)), generator=generator())
    with pytest.raises(ValueError, match="must not be negative"):
        found.holds(-1.0, 0.1)
