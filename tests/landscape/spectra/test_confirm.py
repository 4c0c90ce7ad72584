"""The bounds that say that no eigenvalue was missed, each beside a dense matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spectra_cases import matrix, seeded_generator
from torch import Tensor

from landscape.operators.matrix import MatrixOperator
from landscape.spectra.confirm import Chain, largest_overlap
from landscape.spectra.krylov import Krylov
from landscape.spectra.task import ENDS, Task, key

N = 40


def started(A: Tensor, which: str, seed: int, steps: int = 9, wanted: int = 3) -> tuple[Chain, Tensor]:
    """A chain beside the best Ritz pairs after a few steps, which have not converged; and those, `(n, wanted)`."""
    operator, task = MatrixOperator(A), Task(wanted, which, 1e-3, 100, 1, None, True, 1e-15)
    krylov = Krylov(operator, N)
    krylov.absorb(operator @ krylov.inject(operator.random(1, "normal", seeded_generator(seed))))
    krylov.advance(steps - 1)
    ritz = krylov.ritz()
    best = task.order(ritz.values)[:wanted]
    S = ritz.coefficients[:, best]
    U = krylov.combine(S)
    g = operator.random(1, "normal", seeded_generator(100 + seed))
    X = krylov.inject(g)
    start = krylov.basis.inner(g)[:, 0]
    krylov.absorb(operator @ X)
    reach, coupling = float(ritz.values[best].abs().max()), float(ritz.pending[best].norm())
    return Chain(task.floor, krylov, start, S, wanted, reach, coupling), U


def complement(A: Tensor, U: Tensor) -> Tensor:
    """M: A on what is orthogonal to U."""
    rest = torch.linalg.qr(torch.cat([U, torch.eye(N, dtype=A.dtype)], dim=1)).Q[:, U.shape[1] : N]
    return rest.T @ A @ rest


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("seed", range(5))
def test_upper_bounds_hold_and_are_those_of_the_coupled_matrix(which: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = matrix(rng.standard_normal(N), seed)
    chain, U = started(A, which, seed)
    values, rest = torch.linalg.eigvalsh(A), torch.linalg.eigvalsh(complement(A, U))
    (signs,) = ENDS[which]
    level = float(key(signs, rest).max())
    true = torch.cat([sign * values for sign in signs]).sort(descending=True).values
    bounds = chain.upper_bounds(level, signs)
    k = U.shape[1]
    assert (bounds[:k] >= true[:k] - 1e-12).all()
    # U^T A U beside level on the complement, with the coupling between them
    expected = [torch.full((k,), level, dtype=torch.float64)]
    for sign in signs:
        P = U @ U.T
        beside = torch.eye(N, dtype=torch.float64) - P
        whole = sign * (P @ A @ P + beside @ A @ P + P @ A @ beside) + level * beside
        found = torch.linalg.eigvalsh(whole)
        expected.append(found[(found - level).abs() > 1e-9])
    best = torch.cat(expected).sort(descending=True).values[:k]
    torch.testing.assert_close(bounds[:k], best, rtol=1e-10, atol=1e-10)
    assert (bounds[:k] - torch.linalg.eigvalsh(U.T @ (signs[0] * A) @ U).flip(0)).max() > 1e-3  # they do couple
    assert (chain.upper_bounds(level, signs, chain.S)[:k] >= best - 1e-9).all()


def grown(A: Tensor, seed: int, steps: int) -> tuple[Chain, Tensor]:
    chain, U = started(A, "LA", seed)
    for step in range(steps):
        chain.measure()
        direction = chain.direction()
        if direction is not None:
            X = chain.space.propose(direction)
            chain.space.absorb(MatrixOperator(A) @ X)
        if step + 1 < steps:
            assert chain.advance()
    return chain, U


@pytest.mark.parametrize("seed", range(5))
def test_refined_vectors_raise_the_level_by_the_angle_that_they_have_turned(seed: int) -> None:
    A = matrix(np.random.default_rng(seed).standard_normal(N), seed)
    chain, U = grown(A, seed, 5)
    krylov, k = chain.space, U.shape[1]
    ritz = krylov.ritz()
    wanted = ritz.coefficients[:, torch.argsort(ritz.values, descending=True)[:k]]
    G = krylov.combine(wanted)
    sine = float(torch.linalg.matrix_norm(U - G @ (G.T @ U), 2))
    assert sine > 0.05
    level = float(torch.linalg.eigvalsh(complement(A, U))[-1])
    coupling = float(torch.linalg.matrix_norm(A @ U - U @ (U.T @ A @ U), 2))
    assert chain.coupling >= coupling * (1 - 1e-9)
    raised = level + sine**2 * max(0.0, chain.reach - level) + 2 * sine * chain.coupling
    assert float(torch.linalg.eigvalsh(complement(A, G))[-1]) <= raised
    bounds = chain.upper_bounds(level, (1.0,), wanted)
    assert float((bounds - raised).abs().min()) < 1e-10 * raised
    assert (bounds[:k] >= torch.linalg.eigvalsh(A).flip(0)[:k] - 1e-12).all()


def test_a_chain_bounds_what_its_start_may_have_missed() -> None:
    A = matrix(np.linspace(-1.0, 1.0, N), 3)
    steps = 6
    chain, _ = grown(A, 0, steps)
    x = 1.3
    # (x - T) p = beta pi_t e_t for the orthonormal polynomials p = (pi_0 = 1, pi_1, ...) of the chain
    T = torch.diag(chain.alpha) + torch.diag(chain.beta[:-1], 1) + torch.diag(chain.beta[:-1], -1)
    last = torch.zeros(steps, dtype=torch.float64)
    last[-1] = 1.0
    p = torch.linalg.solve(x * torch.eye(steps, dtype=torch.float64) - T, last)
    total = float((p / p[0]).square().sum() + (1.0 / (p[0] * chain.beta[-1])) ** 2)
    overlap = total**-0.5
    assert largest_overlap(chain.alpha, chain.beta, x) == pytest.approx(overlap, rel=1e-10)
    # P(|<x, q>| <= eta) <= sqrt(2 n / pi) eta for q uniform on the sphere
    assert chain.doubt(x, N) == pytest.approx(math.sqrt(2 * N / math.pi) * overlap, rel=1e-10)
    assert chain.doubt(0.0, N) == 1.0
    risk = chain.doubt(1.2, N)
    level = chain.level(2.0, N, risk, (1.0,))
    assert level is not None
    assert 1.2 <= level <= 1.2 + 1e-3
    assert chain.level(1.1, N, risk, (1.0,)) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_on_a_random_part_is_one(seed: int) -> None:
    """Of drawn unit vectors at most the stated share has so small a part, and nearly that share has."""
    q = torch.randn(20_000, N, dtype=torch.float64, generator=seeded_generator(seed))
    part = q[:, 0].abs() / q.norm(dim=1)
    eta = 0.02
    share = float((part <= eta).double().mean())
    bound = math.sqrt(2 * N / math.pi) * eta
    assert 0.8 * bound <= share <= 1.1 * bound


@pytest.mark.parametrize("seed", range(5))
def test_no_start_has_a_larger_part_than_the_bound(seed: int) -> None:
    A = matrix(np.concatenate([[1.5, 1.2], np.random.default_rng(seed).random(N - 2)]), seed)
    chain, U = grown(A, seed, 5)
    rest = torch.linalg.qr(torch.cat([U, torch.eye(N, dtype=A.dtype)], dim=1)).Q[:, U.shape[1] : N]
    values, vectors = torch.linalg.eigh(rest.T @ A @ rest)
    q = rest.T @ (chain.space.basis.tensor()[:, : len(chain.Z)] @ chain.Z[:, 0])
    parts = (vectors.T @ q).abs()
    for value, part in zip(values.tolist(), parts.tolist(), strict=True):
        assert part <= largest_overlap(chain.alpha, chain.beta, value) * (1 + 1e-9)
