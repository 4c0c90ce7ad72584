"""Ranks and norms of matrices with designed singular values."""

import math

import numpy as np
import pytest
import torch
from spectra_cases import seeded_generator

from landscape.representation import effective_rank, matrix_ranks, singular_values, stable_rank


def designed(s, rows, columns, seed=0):
    """A matrix with these singular values."""
    g, k = seeded_generator(seed), len(s)
    U, V = (torch.linalg.qr(torch.randn(n, k, generator=g, dtype=torch.float64)).Q for n in (rows, columns))
    return (U * torch.tensor(s, dtype=torch.float64)) @ V.T


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (5, 5)])
def test_designed_singular_values_come_back_with_the_numbers_that_they_make(shape):
    s = [3.0, 2.0, 2.0, 0.5, 1e-3]
    values, floor = singular_values(designed(s, *shape))
    np.testing.assert_allclose(values, s, rtol=1e-9)
    assert floor == pytest.approx(3.0 * math.sqrt(5 * 2**-52))
    found = matrix_ranks(designed(s, *shape))
    assert (found.rows, found.columns) == shape
    p = np.array(s) / sum(s)
    assert found.effective_rank == pytest.approx(math.exp(-sum(p * np.log(p))))
    q = np.array(s) ** 2 / sum(x * x for x in s)
    assert found.effective_rank_squared == pytest.approx(math.exp(-sum(q * np.log(q))))
    assert found.stable_rank == pytest.approx(sum(x * x for x in s) / 9.0)
    assert found.nuclear_norm == pytest.approx(sum(s))
    assert found.largest == pytest.approx(3.0)
    assert found.stable_rank <= found.effective_rank_squared <= found.effective_rank <= 5


def test_what_rounding_leaves_of_zero_is_zero():
    """Squaring costs half of the digits: without the floor a rank of 2 would come out with a hundred small values."""
    A = designed([1.0, 1.0], 300, 120)
    values, floor = singular_values(A)
    assert int((values > 0).sum()) == 2
    assert effective_rank(values) == pytest.approx(2.0, abs=1e-12)
    kept = designed([1.0, 4 * floor], 300, 120)  # what is above is still seen
    assert int((singular_values(kept)[0] > 0).sum()) == 2


def test_matrices_without_directions_and_precisions():
    zero = matrix_ranks(torch.zeros(3, 4))
    assert (zero.effective_rank, zero.stable_rank, zero.nuclear_norm, zero.largest) == (0.0, 0.0, 0.0, 0.0)
    assert stable_rank(torch.zeros(0)) == effective_rank(torch.zeros(0)) == 0.0
    for n in (1, 7):
        assert matrix_ranks(torch.eye(n)).effective_rank == pytest.approx(n)
    A = designed([3.0, 2.0, 1.0], 6, 4).bfloat16()
    assert matrix_ranks(A) == matrix_ranks(A.double())  # nothing is computed in half precision


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (torch.zeros(3), "two dimensions, not the shape"),
        (torch.zeros(2, 2, 2), "two dimensions"),
        (torch.tensor([[1.0, math.nan]]), "not finite: the network has diverged"),
    ],
)
def test_what_is_no_matrix_is_refused(A, message):
    with pytest.raises(ValueError, match=message):
        matrix_ranks(A)
