from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spectra_cases import BrokenOperator, DiagonalOperator, matrix

from landscape.operators.matrix import MatrixOperator
from landscape.spectra import DENSE_LIMIT, Eigenpairs, condition, condition_number


def test_known_condition_numbers() -> None:
    d = np.logspace(0, -4, 60)
    result = condition_number(MatrixOperator(matrix(d)))
    assert result.kappa == pytest.approx(1e4, rel=1e-8)
    assert (result.rank, result.matvecs, result.converged) == (60, 60, True)
    assert result.eigenvalues is not None
    assert torch.allclose(result.eigenvalues.flip(0), torch.from_numpy(d), atol=1e-12)
    signed = condition_number(MatrixOperator(matrix(d * (-1) ** np.arange(60))))
    assert signed.kappa == pytest.approx(1e4, rel=1e-8)


def test_singular_thresholds_and_ranks() -> None:
    d = np.array([4.0, 2.0, -1.0, 1e-3] + [0.0] * 26)
    A = MatrixOperator(matrix(d))
    result = condition_number(A)
    assert (result.rank, result.kappa) == (4, pytest.approx(4e3, rel=1e-9))
    assert result.threshold == pytest.approx(30 * 2.2e-16 * 4, rel=0.02, abs=0)
    cut = condition_number(A, threshold=0.5)
    assert (cut.rank, cut.kappa, cut.smallest) == (3, pytest.approx(4.0), pytest.approx(1.0))
    assert condition_number(A, rank=2).kappa == pytest.approx(2.0)
    rows = {row[0]: row[1:] for row in result.table}
    assert rows[1e-2] == (3, pytest.approx(4.0))
    assert rows[1e-4] == (4, pytest.approx(4e3, rel=1e-9))
    assert "1e-02" in str(result)
    scaled = condition_number(MatrixOperator(1e3 * matrix(d)))
    assert [row[1] for row in scaled.table] == [row[1] for row in result.table]  # thresholds are relative
    zero = condition_number(MatrixOperator(torch.zeros(5, 5)))
    assert (zero.kappa, zero.rank, zero.smallest) == (math.inf, 0, 0.0)


def test_beyond_the_dense_limit() -> None:
    n = DENSE_LIMIT + 100
    d = np.concatenate([np.logspace(0, -2, 30), np.zeros(n - 30)])
    A = DiagonalOperator(d)
    with pytest.raises(ValueError, match="positive semi-definite"):
        condition_number(A)
    A.positive_semidefinite = True
    result = condition_number(A)
    assert not result.converged
    assert 90 < result.kappa <= 100 * (1 + 1e-6)
    ranked = condition_number(DiagonalOperator(d), rank=10)
    assert ranked.converged
    assert ranked.kappa == pytest.approx(d[0] / d[9], rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_lower_bound_is_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = np.sort(rng.random(DENSE_LIMIT + 50) ** 4)[::-1].copy()
    A = DiagonalOperator(d)
    A.positive_semidefinite = True
    for threshold in (None, 1e-3, 0.3):
        result = condition_number(A, threshold=threshold)
        cut = result.threshold
        kept = d[d > cut]
        assert result.kappa <= kept[0] / kept[-1] * (1 + 1e-9)


def test_the_lower_bound_is_that_of_the_ritz_values_with_their_residuals() -> None:
    """Few steps of a Lanczos process of our own, so that Ritz values are off by much."""
    d = np.linspace(1.0, 100.0, 60)
    steps = 8
    A = DiagonalOperator(d, memory=(steps + 4) * 60 * 8)
    q = A.random(1, "normal", torch.Generator().manual_seed(0))[:, 0].numpy()
    Q = [q / np.linalg.norm(q)]
    for _ in range(steps):
        w = d * Q[-1]
        w -= np.array(Q).T @ (np.array(Q) @ w)
        Q.append(w / np.linalg.norm(w))
    basis = np.array(Q[:steps]).T
    T = basis.T @ (d[:, None] * basis)
    values, vectors = np.linalg.eigh(T)
    residuals = np.linalg.norm(d[:, None] * (basis @ vectors) - basis @ vectors * values, axis=0)
    assert (residuals > 0.1).all()
    inside = values[2] - 0.5 * residuals[2]  # below this Ritz value, but not by its error
    for threshold in (0.0, inside, values[2] - 1.01 * residuals[2]):
        certain = values - residuals > threshold
        found = condition.lower_bound(A, threshold, "device")
        smallest = (values + residuals)[certain].min()
        assert (found.rank, found.converged) == (int(certain.sum()), False)
        assert found.smallest == pytest.approx(smallest, rel=1e-9)
        assert found.kappa == pytest.approx(values[-1] / smallest, rel=1e-9)
        assert found.matvecs == steps


@pytest.mark.parametrize(("converged", "residual"), [(False, 1e-3), (True, 0.3)])
def test_what_has_not_converged_gives_a_lower_bound(
    monkeypatch: pytest.MonkeyPatch, converged: bool, residual: float
) -> None:
    pairs = Eigenpairs(
        values=torch.tensor([4.0, -1.0], dtype=torch.float64),
        vectors=torch.zeros(3, 2),
        residuals=torch.tensor([0.0, residual], dtype=torch.float64),
        converged=converged,
        confirmed=False,
        matvecs=2,
        seed=0,
    )
    monkeypatch.setattr(condition, "DENSE_LIMIT", 2)
    monkeypatch.setattr(condition, "eigsh", lambda *_, **__: pairs)
    found = condition_number(DiagonalOperator(np.ones(3)), rank=2)
    assert (found.kappa, found.converged) == (pytest.approx(4.0 / (1.0 + residual)), False)


def test_refusals() -> None:
    A = MatrixOperator(torch.eye(4))
    for wrong in ({"threshold": -1.0}, {"rank": 5}, {"rank": 0}, {"threshold": 1.0, "rank": 2}):
        with pytest.raises(ValueError, match=r"threshold|rank"):
            condition_number(A, **wrong)  # type: ignore[arg-type]
    with pytest.raises(FloatingPointError, match="finite"):
        condition_number(BrokenOperator(torch.eye(4)))
    assert condition_number(A).kappa == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decades", [2, 40])
def test_a_spectrum_that_goes_on_below_the_threshold_limits_kappa(dtype: torch.dtype, decades: int) -> None:
    n = 300
    d = torch.logspace(0, -decades, n, dtype=torch.float64)
    result = condition_number(MatrixOperator(torch.diag(d).to(dtype)))
    name = str(dtype).removeprefix("torch.")
    assert result.limited_by == (name if decades == 40 else "")
    assert (f"limited by {name}" in str(result)) == (decades == 40)
    assert ("float64 copy" in str(result)) == (decades == 40 and dtype == torch.float32)
    if decades == 40:
        assert result.kappa == pytest.approx(1 / (n * torch.finfo(dtype).eps), rel=0.3)


def test_what_float32_makes_of_zero_is_no_limit() -> None:
    torch.manual_seed(0)
    Q = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64)).Q
    d = torch.cat([torch.logspace(0, -2, 100, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)])
    A = ((Q * d) @ Q.T).float()
    result = condition_number(MatrixOperator(0.5 * (A + A.T)))
    assert (result.rank, result.limited_by) == (100, "")


def test_eigenvalues_with_wide_gaps_are_cut_off_too() -> None:
    # kappa is 1e3, far from 1 / (n eps), though one eigenvalue of 1e-5 counts as zero
    d = torch.logspace(0, -3, 300)
    d[-20:] = 1e-5
    result = condition_number(MatrixOperator(torch.diag(d)))
    assert result.rank == 280
    assert result.limited_by == "float32"


def test_a_threshold_of_ones_own_and_the_noise_are_named() -> None:
    d = torch.logspace(0, -9, 200, dtype=torch.float64)
    A = MatrixOperator(torch.diag(d))
    assert condition_number(A, threshold=1e-4).limited_by == "the threshold"
    assert condition_number(A, rank=7).limited_by == ""
    A.noise = 3e-6
    assert condition_number(A).limited_by == "noise 3e-06"


def test_a_bound_says_what_limits_it() -> None:
    d = np.concatenate([[1.0, 0.5], np.full(DENSE_LIMIT + 98, 1e-3)])
    A = DiagonalOperator(d)
    A.positive_semidefinite = True
    near = condition_number(A, threshold=0.9e-3)
    assert near.limited_by == "the threshold"
    assert str(near).startswith("kappa >= 1e+03, limited by the threshold (rank >= 3,")
    assert condition_number(A, threshold=1e-5).limited_by == ""
    assert condition_number(A).limited_by == ""
