from __future__ import annotations

import pytest
import torch
from spectra_cases import BrokenOperator, matrix, seeded_generator, spectra

from landscape.operators.matrix import MatrixOperator
from landscape.operators.vectors import orthonormal
from landscape.spectra import lanczos
from landscape.spectra.krylov import Krylov

DTYPES = [torch.float64, torch.float32]


def relation_error(A: torch.Tensor, process: Krylov) -> float:
    Q, H = process.basis.tensor().double(), process.H
    left = A @ Q - Q @ H - process.pending.double() @ process.B
    return float(left.norm() / A.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(spectra(60)))
def test_lanczos_identity(name: str, dtype: torch.dtype) -> None:
    A = matrix(spectra(60)[name])
    v = torch.randn(60, dtype=dtype, generator=seeded_generator(1))
    state = lanczos(MatrixOperator(A.to(dtype)), v, 25)
    eps = torch.finfo(dtype).eps
    Q, m = state.basis.double(), state.alpha.numel()
    assert m <= 25
    assert state.beta.shape == (m - 1,)
    assert (Q.T @ Q - torch.eye(m)).abs().max() < 30 * eps
    end = torch.eye(m, dtype=torch.float64)[-1]
    error = A @ Q - Q @ state.matrix - torch.outer(state.residual.double(), end)
    assert error.norm() < 100 * eps * A.norm()
    assert torch.allclose(Q[:, 0], v.double() / v.double().norm(), atol=10 * eps)


def test_lanczos_resumes() -> None:
    A = MatrixOperator(matrix(spectra(80)["outliers"]))
    v = torch.randn(80, dtype=torch.float64, generator=seeded_generator(2))
    whole = lanczos(A, v, 30)
    part = lanczos(A, lanczos(A, v, 12), 18)
    assert torch.allclose(whole.alpha, part.alpha, atol=1e-10)
    assert torch.allclose(whole.beta, part.beta, atol=1e-10)
    assert torch.allclose(whole.basis, part.basis, atol=1e-8)


def test_lanczos_breaks_down_early() -> None:
    A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0] + [0.0] * 37, dtype=torch.float64)))
    state = lanczos(A, torch.ones(40, dtype=torch.float64), 20)
    assert state.alpha.numel() == 4
    assert state.residual.norm() == 0
    assert torch.allclose(torch.linalg.eigvalsh(state.matrix), torch.tensor([0.0, 1, 2, 3], dtype=torch.float64))
    assert lanczos(A, state, 5).alpha.numel() == 4


def test_lanczos_refuses() -> None:
    A = MatrixOperator(torch.eye(5))
    with pytest.raises(ValueError, match="zero"):
        lanczos(A, torch.zeros(5), 2)
    with pytest.raises(ValueError, match="finite"):
        lanczos(A, torch.tensor([1.0, float("nan"), 0, 0, 0]), 2)
    with pytest.raises(ValueError, match="shape"):
        lanczos(A, torch.ones(4), 2)
    with pytest.raises(ValueError, match="steps"):
        lanczos(A, torch.ones(5), 0)
    with pytest.raises(FloatingPointError, match="finite"):
        lanczos(BrokenOperator(torch.eye(5)), torch.ones(5), 2)
    with pytest.raises(MemoryError, match="budget"):
        lanczos(MatrixOperator(torch.eye(500), memory=20_000), torch.ones(500), 50, basis="device")


@pytest.mark.parametrize("dtype", DTYPES)
def test_relation_survives_blocks_injections_rotations_and_restarts(dtype: torch.dtype) -> None:
    A = matrix(spectra(70)["indefinite"])
    op, rng = MatrixOperator(A.to(dtype)), seeded_generator(4)
    process = Krylov(op, 60)
    process.absorb(op @ process.inject(op.random(3, "normal", rng)))
    for round_ in range(10):
        p = process.pending.shape[-1]
        Z = torch.linalg.qr(torch.randn(p, p, dtype=torch.float64, generator=rng)).Q
        process.absorb(op @ process.propose(Z[:, : 1 + round_ % 3]))
        if round_ % 4 == 1:
            process.absorb(op @ process.inject(op.random(1, "normal", rng)))
        if round_ == 6:
            process.restart(process.ritz().coefficients[:, -9:])
    eps = torch.finfo(dtype).eps
    Q = process.basis.tensor().double()
    assert (Q.T @ Q - torch.eye(process.size)).abs().max() < 100 * eps
    assert relation_error(A, process) < 200 * eps
    ritz = process.ritz()
    U = Q @ ritz.coefficients
    true = (A @ U - U * ritz.values).norm(dim=0)
    assert torch.allclose(true, ritz.residuals, atol=200 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthonormal_keeps_graded_directions_and_drops_dependent_ones(dtype: torch.dtype) -> None:
    op = MatrixOperator(torch.eye(50, dtype=dtype))
    eps = torch.finfo(dtype).eps
    X = op.random(8, "normal", seeded_generator(5)) * torch.logspace(
        0, 0.6 * torch.tensor(eps).log10().item(), 8, dtype=dtype
    )
    X = torch.cat([X, X[:, :2] + X[:, 2:4], torch.zeros(50, 1, dtype=dtype)], dim=1)
    Q = orthonormal(op.space, X, None, 20 * eps)
    assert Q.shape == (50, 8)
    Qd, Xd = Q.double(), X.double()
    assert (Qd.T @ Qd - torch.eye(8)).abs().max() < 20 * eps
    left = Xd - Qd @ (Qd.T @ Xd)
    assert left.norm(dim=0).max() < 100 * eps


def test_residuals_hold_the_asymmetry_of_products_with_noise() -> None:
    """What is not symmetric in H is part of ||A u - theta u||, though no candidate carries it."""

    class Skewed(MatrixOperator):
        def _matmat(self, V: torch.Tensor) -> torch.Tensor:
            return super()._matmat(V) + skew @ V

    A = matrix(spectra(60)["outliers"])
    noise = torch.randn(60, 60, dtype=torch.float64, generator=seeded_generator(5))
    skew = 1e-3 * (noise - noise.T)
    process = Krylov(Skewed(A), 10)
    process.absorb(Skewed(A) @ process.inject(MatrixOperator(A).random(1, "normal", seeded_generator(6))))
    process.advance(9)
    ritz = process.ritz()
    U = process.combine(ritz.coefficients)
    true = ((A + skew) @ U - U * ritz.values).norm(dim=0)
    assert (ritz.asymmetry > 0.1 * true).any()
    # the two parts are orthogonal only to the accuracy of C B
    torch.testing.assert_close(ritz.residuals, true, rtol=1e-6, atol=1e-12)
