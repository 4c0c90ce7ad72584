"""A dense matrix as an operator."""

import pytest
import torch
from objective_cases import refuses

from landscape import LinearOperator, MatrixOperator


def test_matrix_operator():
    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    op = MatrixOperator(A)
    assert torch.equal(op.to_dense(), A)
    with refuses("square"):
        MatrixOperator(torch.zeros(2, 3))
    with refuses("not symmetric"):
        MatrixOperator(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with refuses("not finite"):
        MatrixOperator(torch.full((2, 2), float("nan")))
    with pytest.raises(IndexError):
        op.block([5])
    with refuses("up to n = 1"):
        MatrixOperator(torch.eye(3), memory=8).to_dense()
    state = torch.get_rng_state()
    assert not torch.equal(op.random(5, "normal"), op.random(5, "normal"))
    assert torch.equal(torch.get_rng_state(), state)
    once, together = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    one_by_one = torch.cat([op.random(1, "normal", once) for _ in range(3)], dim=1)
    assert torch.equal(one_by_one, op.random(3, "normal", together))


def test_what_is_known_of_sums_and_multiples():
    first, second = MatrixOperator(torch.eye(2)), MatrixOperator(2 * torch.eye(2))
    first.noise, second.noise = 0.1, 0.2
    assert (first + second).noise == (second + first).noise == 0.2
    first.positive_semidefinite = second.positive_semidefinite = True
    assert (first + second).positive_semidefinite
    assert (2.0 * first).positive_semidefinite
    assert not (-first).positive_semidefinite
    assert not first.shifted(-0.5).positive_semidefinite
    second.positive_semidefinite = False
    assert not (first + second).positive_semidefinite


def test_a_block_by_a_mask_is_that_of_its_places_and_fractions_are_refused():
    A = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    op = MatrixOperator(A + A.T)
    chosen = torch.tensor([False, True, False, True])
    assert torch.equal(op.block(chosen), op.block([1, 3]))
    with pytest.raises(IndexError, match="4 entries, not 2"):
        op.block(torch.tensor([True, False]))
    with pytest.raises(TypeError, match="whole numbers or a mask"):
        op.block(torch.tensor([0.5]))


def test_an_operator_of_ones_own_that_returns_another_shape_is_told_so():
    class First(LinearOperator):
        def _matmat(self, V):
            return V[:, 0]

    with pytest.raises(ValueError, match=r"First._matmat gives \(3,\) for \(3, 1\)"):
        First(3, torch.float32, torch.device("cpu")) @ torch.ones(3)
