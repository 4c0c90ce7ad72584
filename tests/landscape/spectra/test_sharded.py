"""Every algorithm on vectors that are sharded, also on what is made of a sharded operator: the space alone differs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from spectra_cases import ShardedOperator, matrix, seeded, spectra

from landscape.operators.linear import LinearOperator, MatrixOperator
from landscape.operators.preconditioned import Preconditioned
from landscape.spectra import condition_number, density, diagonal, eigsh, lanczos, trace

N = 80
A, B = matrix(spectra(N)["outliers"]), matrix(spectra(N)["decaying"], seed=1)
SCALE = torch.rand(N, dtype=torch.float64, generator=seeded(2)) + 0.5

# of an operator and a second one on the same space
COMBINATIONS: dict[str, Callable[[LinearOperator, LinearOperator], LinearOperator]] = {
    "itself": lambda X, Y: X,
    "sum": lambda X, Y: X + Y,
    "difference": lambda X, Y: X - Y,
    "multiple": lambda X, Y: -0.5 * X,
    "shift": lambda X, Y: X.shifted(0.3),
    "preconditioned": lambda X, Y: Preconditioned(X, SCALE.reshape(X.space.shape)),
    "all": lambda X, Y: Preconditioned(2.0 * X + Y.shifted(0.1), SCALE.reshape(X.space.shape)),
}
ALGORITHMS: dict[str, Callable[[LinearOperator], list[torch.Tensor | float]]] = {
    "eigsh": lambda X: [eigsh(X, 4, which="LM", tol=1e-8, generator=seeded(0)).values],
    "eigsh warm": lambda X: [eigsh(X, 2, v0=eigsh(X, 2, generator=seeded(0)).vectors, tol=1e-8).values],
    "hutchinson": lambda X: [trace(X, method="hutchinson", matvecs=20, generator=seeded(0)).value],
    "hutch++": lambda X: [trace(X, method="hutch++", matvecs=30, generator=seeded(0)).value],
    "xtrace": lambda X: [trace(X, method="xtrace", matvecs=30, generator=seeded(0)).value],
    "exact trace": lambda X: [trace(X, matvecs=N).value],
    "diagonal": lambda X: [diagonal(X, matvecs=10, generator=seeded(0)).value],
    "exact diagonal": lambda X: [diagonal(X, matvecs=N).value],
    "density": lambda X: [density(X, probes=2, steps=8, generator=seeded(0)).nodes],
    "lanczos": lambda X: [lanczos(X, X.random(1, "normal", seeded(0))[..., 0], 9).alpha],
    "condition": lambda X: [condition_number(X, rank=3).kappa],
    "block": lambda X: [X.block([0, 5, N - 1])],
    "dense": lambda X: [X.to_dense()],
}


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("combination", list(COMBINATIONS))
def test_the_space_is_all_that_sharding_changes(combination: str, algorithm: str) -> None:
    combine, run = COMBINATIONS[combination], ALGORITHMS[algorithm]
    one = combine(MatrixOperator(A, memory=1 << 30), MatrixOperator(B, memory=1 << 30))
    sharded = ShardedOperator(A)
    many = combine(sharded, ShardedOperator(B))
    assert many.space is sharded.space
    for expected, found in zip(run(one), run(many), strict=True):
        expected, found = torch.as_tensor(expected), torch.as_tensor(found)
        torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-7, atol=1e-9)
