"""The inverse as an operator: beside the dense one, as exact as it says, refused where a solve fails."""

import numpy as np
import pytest
import torch
from spectra_cases import ShardedOperator, matrix, seeded_generator
from torch import nn

from landscape import GaussNewton, MatrixOperator, Objective
from landscape.spectra import eigsh, inverse, trace

N = 60
VALUES = np.r_[-2.0, -0.5, np.geomspace(0.01, 5.0, N - 2)]


@pytest.mark.parametrize("damping", [0.0, 2.5, -1.0])
@pytest.mark.parametrize("tol", [1e-4, 1e-9])
def test_products_are_those_of_the_dense_inverse_up_to_its_noise(damping, tol):
    M = matrix(VALUES)
    A = MatrixOperator(M)
    B = inverse(A, damping, tol=tol)
    expected = torch.linalg.inv(M + damping * torch.eye(N).double())
    V = torch.cat([torch.randn(N, 3, generator=seeded_generator(0)).double(), torch.zeros(N, 1).double()], dim=1)
    error = (B @ V - expected @ V).norm(dim=0)
    assert (error <= B.noise * torch.linalg.matrix_norm(expected, 2) * V.norm(dim=0)).all()
    assert B.noise == tol
    assert (B.matvecs, B.shape, B.dtype) == (4, (N, N), torch.float64)
    assert A.matvecs > 4
    assert not B.positive_semidefinite
    one = B @ V[:, 0]
    assert one.shape == (N,)
    torch.testing.assert_close((0.5 * B.shifted(1.0)) @ V[:, 0], 0.5 * one + 0.5 * V[:, 0], rtol=1e-3, atol=1e-3)


def test_algorithms_take_it_as_any_other_operator():
    M = matrix(VALUES)
    near = eigsh(inverse(MatrixOperator(M), damping=-1.0, tol=1e-8), 3, which="LM", generator=seeded_generator(0))
    expected = np.sort(VALUES[np.argsort(np.abs(VALUES - 1.0))[:3]])
    np.testing.assert_allclose(np.sort(1.0 + 1.0 / near.values.numpy()), expected, atol=1e-5)
    assert near.converged
    assert near.operator_noise == 1e-8
    rough = eigsh(inverse(MatrixOperator(M), damping=3.0, tol=1e-2), 1, tol=1e-3, generator=seeded_generator(0))
    assert not rough.converged  # the noise does not allow that tolerance
    found = trace(inverse(MatrixOperator(M), damping=3.0), matvecs=N)
    assert found.value == pytest.approx((1.0 / (VALUES + 3.0)).sum(), rel=1e-5)
    sharded = ShardedOperator(M)
    top = eigsh(inverse(sharded, damping=3.0), 2, generator=seeded_generator(0))
    np.testing.assert_allclose(top.values.numpy(), np.sort(1.0 / (VALUES + 3.0))[::-1][:2], atol=1e-3)


def test_of_a_network_and_with_a_preconditioner():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    G = GaussNewton(Objective(model, nn.MSELoss(), (torch.randn(20, 4).double(), torch.randn(20, 2).double())))
    dense, g = G.to_dense(), torch.randn(G.shape[0], generator=seeded_generator(1)).double()
    B = inverse(G, damping=0.1, preconditioner=dense.diagonal())
    assert B.positive_semidefinite
    assert B.checked is not None
    expected = torch.linalg.solve(dense + 0.1 * torch.eye(len(g)).double(), g)
    torch.testing.assert_close(B @ g, expected, rtol=1e-4, atol=1e-4 * float(expected.norm()))
    assert "damping=0.1, tol=1e-06" in repr(B)


def test_what_has_not_converged_is_no_product():
    singular = MatrixOperator(matrix(np.r_[np.zeros(10), np.ones(N - 10)]))
    b = torch.randn(N, generator=seeded_generator(0)).double()
    with pytest.raises(
        RuntimeError, match=r"no product with the inverse of A \+ 0 I to 1e-06: residual .* not converged"
    ):
        inverse(singular) @ b
    with pytest.raises(RuntimeError, match="a larger damping, tol or max_matvecs"):
        inverse(MatrixOperator(matrix(VALUES)), 2.1, max_matvecs=5) @ b
    with pytest.raises(ValueError, match="tol is positive"):
        inverse(singular, tol=0.0) @ b
