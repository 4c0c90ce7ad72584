"""Every algorithm on vectors that are sharded, also on what is made of a sharded operator: the space alone differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spectra_cases import ShardedOperator, matrix, seeded_generator, spectra

from landscape.operators.linear import LinearOperator
from landscape.operators.matrix import MatrixOperator
from landscape.operators.preconditioned import Preconditioned
from landscape.spectra import apply, condition_number, density, diagonal, eigsh, lanczos, trace, trace_of

N = 80
A, B = matrix(spectra(N)["triple"]), matrix(1.0 / torch.arange(1, N + 1).numpy(), seed=1)
SCALE = torch.rand(N, dtype=torch.float64, generator=seeded_generator(2)) + 0.5

# of an operator and a second one on the same space
COMBINATIONS: dict[str, Callable[[LinearOperator, LinearOperator], LinearOperator]] = {
    "itself": lambda X, Y: X,
    "other": lambda X, Y: Y,
    "sum": lambda X, Y: X + Y,
    "difference": lambda X, Y: X - Y,
    "multiple": lambda X, Y: -0.5 * X,
    "shift": lambda X, Y: X.shifted(0.3),
    "preconditioned": lambda X, Y: Preconditioned(X, SCALE.reshape(X.space.shape)),
    "all": lambda X, Y: Preconditioned(2.0 * X + Y.shifted(0.1), SCALE.reshape(X.space.shape)),
}


def estimate(found: Any) -> list[Any]:
    return [found.value, found.stderr, found.matvecs]


def traces(X: LinearOperator, method: str) -> list[Any]:
    options: tuple[dict[str, Any], ...] = ({"matvecs": 36}, {"matvecs": 79, "rtol": 0.2}, {"matvecs": 80})
    return [x for o in options for x in estimate(trace(X, method=method, generator=seeded_generator(0), **o))]


def pairs(X: LinearOperator) -> list[Any]:
    cold = eigsh(X, 5, which="LM", generator=seeded_generator(0))
    warm = eigsh(X, 5, which="LM", v0=cold.vectors, generator=seeded_generator(0))
    assert warm.converged
    return [cold.values, cold.matvecs, warm.values, warm.matvecs]


def chain(X: LinearOperator) -> list[Any]:
    found = lanczos(X, X.random(1, "normal", seeded_generator(3))[..., 0], 10)
    return [found.alpha, found.beta, found.basis, found.residual]


def nodes(X: LinearOperator) -> list[Any]:
    found = density(X, probes=3, steps=12, generator=seeded_generator(0))
    return [found.nodes, found.weights]


def sums(X: LinearOperator) -> list[Any]:
    options: tuple[dict[str, Any], ...] = ({"matvecs": 60}, {"matvecs": 20}, {"matvecs": N})
    return [x for o in options for x in estimate(trace_of(X, torch.exp, generator=seeded_generator(0), **o))]


def applied(X: LinearOperator) -> list[Any]:
    found = apply(X, torch.exp, X.random(2, "normal", seeded_generator(3)))
    return [found.value, found.error, found.matvecs]


ALGORITHMS: dict[str, Callable[[LinearOperator], list[Any]]] = {
    "eigsh": pairs,
    "hutchinson": lambda X: traces(X, "hutchinson"),
    "hutch++": lambda X: traces(X, "hutch++"),
    "xtrace": lambda X: traces(X, "xtrace"),
    "auto": lambda X: traces(X, "auto"),
    "diagonal": lambda X: estimate(diagonal(X, matvecs=10, generator=seeded_generator(0))),
    "exact diagonal": lambda X: estimate(diagonal(X, matvecs=N)),
    "density": nodes,
    "lanczos": chain,
    "trace of a function": sums,
    "function": applied,
    "condition": lambda X: [condition_number(X, rank=3).kappa],
    "block": lambda X: [X.block([0, 5, N - 1])],
    "dense": lambda X: [X.to_dense()],
}


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("combination", list(COMBINATIONS))
def test_the_space_is_all_that_sharding_changes(combination: str, algorithm: str) -> None:
    combine, run = COMBINATIONS[combination], ALGORITHMS[algorithm]
    one = combine(MatrixOperator(A, memory=1 << 30), MatrixOperator(B, memory=1 << 30))
    many = combine(ShardedOperator(A), ShardedOperator(B))
    for expected, found in zip(map(torch.as_tensor, run(one)), map(torch.as_tensor, run(many)), strict=True):
        torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-10, atol=1e-12)
