from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra_cases import BrokenOperator, DiagonalOperator, NoisyOperator, matrix, seeded_generator

from landscape.operators.matrix import MatrixOperator
from landscape.spectra import diagonal, trace
from landscape.spectra.hutchpp import HutchPlusPlus
from landscape.spectra.xtrace import XTrace

METHODS = ["hutchinson", "hutch++", "xtrace", "auto"]
N = 150
DESIGNED = {
    "decaying": 1.0 / np.arange(1, N + 1) ** 2,
    "outliers": np.concatenate([np.linspace(10, 3, 8), 0.1 + 0.05 * np.sin(np.arange(N - 8))]),
    "indefinite": np.concatenate([np.linspace(3, 1, 40), -np.linspace(0.5, 0.1, N - 40)]),
}
MATRICES = {name: matrix(d, seed=7) for name, d in DESIGNED.items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", list(DESIGNED))
def test_truth_lies_within_two_standard_errors(name: str, method: str) -> None:
    A, true = MatrixOperator(MATRICES[name], memory=1 << 30), float(DESIGNED[name].sum())
    runs = [trace(A, method=method, matvecs=36, generator=seeded_generator(s)) for s in range(300)]
    inside = np.mean([abs(r.value - true) <= 2 * r.stderr for r in runs])
    assert inside >= 0.9, inside
    assert all(r.matvecs <= 36 and r.converged for r in runs)
    # nor is the error bar wider than the scatter asks for (Student's factor, and XTrace's for shared sketches)
    assert np.mean([r.stderr for r in runs]) < 2.5 * np.std([r.value for r in runs])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", list(DESIGNED))
def test_truth_lies_within_two_standard_errors_when_stopping_on_rtol(name: str, method: str) -> None:
    A, true = MatrixOperator(MATRICES[name], memory=1 << 30), float(DESIGNED[name].sum())
    runs = [trace(A, method=method, rtol=0.1, matvecs=149, generator=seeded_generator(s)) for s in range(100)]
    inside = np.mean([abs(r.value - true) <= 2 * r.stderr for r in runs])
    assert inside >= 0.9, inside
    assert all(r.stderr <= 0.1 * abs(r.value) for r in runs if r.converged)
    assert all(r.matvecs <= 149 for r in runs)


def test_sketches_beat_hutchinson_on_decaying_spectra() -> None:
    A, true = MatrixOperator(MATRICES["decaying"], memory=1 << 30), float(DESIGNED["decaying"].sum())
    error = {
        m: np.mean([abs(trace(A, method=m, matvecs=48, generator=seeded_generator(s)).value - true) for s in range(30)])
        for m in METHODS
    }
    assert error["hutch++"] < 0.2 * error["hutchinson"]
    assert error["xtrace"] < 0.2 * error["hutchinson"]


@pytest.mark.parametrize("stages", [[12], [4, 8], [1, 5, 6]])
def test_xtrace_equals_naive_leave_one_out(stages: list[int]) -> None:
    A = MATRICES["outliers"]
    estimator = XTrace(MatrixOperator(A), seeded_generator(3))
    for k in stages:
        estimator.extend(k)
    Omega = MatrixOperator(A).random(12, "normal", seeded_generator(3))
    samples = []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        Q = torch.linalg.qr(A @ Omega[:, others]).Q
        u = Omega[:, i] - Q @ (Q.T @ Omega[:, i])
        samples.append(torch.trace(Q.T @ A @ Q) + (N - 11) * (u @ A @ u) / (u @ u))
    value, stderr, _ = estimator.estimate()
    naive = torch.stack(samples)
    assert value == pytest.approx(float(naive.mean()), rel=1e-9)
    assert stderr > float(naive.std()) / 12**0.5
    assert estimator.estimate()[0] == value


@pytest.mark.parametrize("stages", [[9], [2, 7]])
def test_hutchpp_equals_naive(stages: list[int]) -> None:
    A = MATRICES["outliers"]
    estimator, op, rng = HutchPlusPlus(MatrixOperator(A), seeded_generator(3)), MatrixOperator(A), seeded_generator(3)
    sketch, probes = [], []
    for k in stages:
        estimator.extend(k)
        sketch.append(op.random(k, "rademacher", rng))
        probes.append(op.random(k, "rademacher", rng))
    Q = torch.linalg.qr(A @ torch.cat(sketch, dim=1)).Q
    G = torch.cat(probes, dim=1)
    G = G - Q @ (Q.T @ G)
    naive = torch.trace(Q.T @ A @ Q) + (G * (A @ G)).sum(dim=0)
    value, stderr, _ = estimator.estimate()
    assert value == pytest.approx(float(naive.mean()), rel=1e-10)
    student = 2.306004 / 1.959964  # t of 8 degrees of freedom at 0.975 over that of infinitely many
    assert stderr == pytest.approx(student * float(naive.std()) / 3, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["hutch++", "xtrace", "auto"])
def test_low_rank_is_exact(method: str, dtype: torch.dtype) -> None:
    d = np.zeros(N)
    d[:5] = [5.0, 2.0, 1.0, -1.0, 1e-3]
    A = MatrixOperator(matrix(d).to(dtype), memory=1 << 30)
    eps = torch.finfo(dtype).eps
    for seed in range(20):
        result = trace(A, method=method, matvecs=45, generator=seeded_generator(seed))
        assert abs(result.value - d.sum()) <= 2 * result.stderr
        assert result.stderr < 1000 * eps * 9
    zero = trace(MatrixOperator(torch.zeros(N, N, dtype=dtype)), method=method, matvecs=45)
    assert (zero.value, zero.stderr) == (0.0, 0.0)


def test_fast_decay_over_all_digits() -> None:
    d = 10.0 ** -np.arange(N)
    A = MatrixOperator(matrix(d), memory=1 << 30)
    for method in ("hutch++", "xtrace"):
        for seed in range(20):
            result = trace(A, method=method, matvecs=90, generator=seeded_generator(seed))
            assert abs(result.value - d.sum()) <= 2 * result.stderr
            assert result.stderr < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_exact_when_products_reach_n(method: str) -> None:
    A = DiagonalOperator(np.arange(40.0))
    result = trace(A, method=method, matvecs=40)
    assert result.value == pytest.approx(780)
    assert result.stderr < 1e-10
    assert (result.matvecs, result.converged) == (40, True)
    assert trace(A, method=method).matvecs == 40
    sharp = trace(MatrixOperator(MATRICES["indefinite"]), method=method, rtol=1e-9)
    assert sharp.converged
    assert sharp.value == pytest.approx(DESIGNED["indefinite"].sum(), rel=1e-10)
    assert sharp.matvecs <= 2 * N


def test_memory_decides_the_method() -> None:
    tight = MatrixOperator(MATRICES["decaying"], memory=20 * N * 8)
    assert trace(tight, matvecs=60, generator=seeded_generator(0)).matvecs == 60
    with pytest.raises(MemoryError, match="hutchinson"):
        trace(tight, matvecs=60, method="xtrace", basis="device")


def test_noise_enters_the_error_and_stops_the_rtol() -> None:
    A = NoisyOperator(MATRICES["decaying"], 1e-2)
    result = trace(A, rtol=1e-3, generator=seeded_generator(0), matvecs=149)
    assert not result.converged
    assert result.stderr > 1e-2 * abs(result.value)


def test_noise_is_relative_to_columns_not_to_a_small_diagonal() -> None:
    A = MATRICES["outliers"].clone()
    A.diagonal().mul_(1e-4)
    columns = 1e-3 * A.norm(dim=0)
    entries = diagonal(NoisyOperator(A, 1e-3), matvecs=N)
    assert ((entries.value - A.diagonal()).abs() <= 2 * entries.stderr).all()
    assert torch.allclose(entries.stderr, columns, rtol=0.02)
    whole = trace(NoisyOperator(A, 1e-3), matvecs=N)
    assert abs(whole.value - float(A.trace())) <= 2 * whole.stderr
    assert whole.stderr == pytest.approx(float(columns.sum()), rel=0.02)


def test_noise_alone_is_the_error_where_all_samples_agree() -> None:
    """z^T A z is the same for all signs z of a diagonal A: what is left is the stated noise."""
    d = np.linspace(1.0, 2.0, N)
    A = DiagonalOperator(d)
    A.noise = 1e-2
    entries = diagonal(A, matvecs=20)
    assert torch.allclose(entries.stderr, 1e-2 * torch.from_numpy(d), rtol=1e-9)
    whole = trace(A, method="hutchinson", matvecs=20)
    assert whole.stderr == pytest.approx(1e-2 * d.sum(), rel=1e-9)
    for rtol, reached in ((0.0101, True), (0.0099, False)):
        assert trace(A, method="hutchinson", rtol=rtol, matvecs=100).converged is reached


def test_callbacks_seeds_and_refusals() -> None:
    A = MatrixOperator(MATRICES["outliers"])
    seen: list[int] = []
    stopped = trace(
        A, method="hutchinson", matvecs=140, callback=lambda done, planned, value: bool(seen.append(done)) or True
    )
    assert not stopped.converged
    assert stopped.matvecs == seen[0] < 140
    first = trace(A, matvecs=30)
    assert trace(A, matvecs=30, generator=seeded_generator(first.seed)).value == first.value
    assert trace(A, method="hutchinson", matvecs=1).stderr == float("inf")
    for wrong in ({"method": "lucky"}, {"rtol": 0.0}, {"matvecs": 0}, {"method": "hutch++", "matvecs": 2}):
        with pytest.raises(ValueError, match=r"method|rtol|matvecs"):
            trace(A, **wrong)  # type: ignore[arg-type]
    with pytest.raises(FloatingPointError, match="finite"):
        trace(BrokenOperator(torch.eye(30)), matvecs=15)


def test_diagonal_covers_the_truth() -> None:
    A = MATRICES["outliers"]
    op = MatrixOperator(A)
    results = [diagonal(op, matvecs=20, generator=seeded_generator(s)) for s in range(50)]
    inside = torch.stack([(r.value - A.diagonal()).abs() <= 2 * r.stderr for r in results]).double().mean()
    assert inside > 0.93
    scatter = torch.stack([r.value for r in results]).std(dim=0)
    assert torch.stack([r.stderr for r in results]).mean() < 1.5 * scatter.mean()
    assert results[0].value.shape == results[0].stderr.shape == (N,)
    assert results[0].matvecs == 20
    low = diagonal(MatrixOperator(A.float()), matvecs=20, generator=seeded_generator(0))
    assert low.value.dtype == torch.float32


def test_diagonal_exact_partial_and_refused() -> None:
    A = MATRICES["indefinite"]
    exact = diagonal(MatrixOperator(A), matvecs=N)
    assert torch.allclose(exact.value, A.diagonal(), atol=1e-12)
    assert exact.stderr.max() < 1e-12
    assert exact.matvecs == N
    sums: list[float] = []
    diagonal(MatrixOperator(A), matvecs=500, callback=lambda done, planned, total: bool(sums.append(total)))
    assert sums[-1] == pytest.approx(float(A.trace()))
    assert torch.isinf(diagonal(MatrixOperator(A), matvecs=1).stderr).all()
    stopped = diagonal(MatrixOperator(A), matvecs=100, callback=lambda *_: True)
    assert not stopped.converged
    with pytest.raises(ValueError, match="matvecs"):
        diagonal(MatrixOperator(A), matvecs=0)
    with pytest.raises(FloatingPointError, match="finite"):
        diagonal(BrokenOperator(torch.eye(3)), matvecs=2)
