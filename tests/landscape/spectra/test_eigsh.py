from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from spectra_cases import BrokenOperator, DiagonalOperator, NoisyOperator, best, matrix, seeded_generator, spectra

from landscape import Hessian, Objective
from landscape.operators.matrix import MatrixOperator
from landscape.spectra import Eigenpairs, eigsh

N = 300


def check(result: Eigenpairs, d: np.ndarray, which: str, tol: float = 1e-3) -> None:
    """The promise: every value within tol * largest of the true i-th one, multiplicity included."""
    k = len(result.values)
    error = np.abs(result.values.numpy() - best(d, which, k))
    if which == "LM":  # of two that tie in size either may come first
        error = np.abs(np.abs(result.values.numpy()) - np.abs(best(d, which, k)))
    assert result.converged, result
    assert error.max() <= tol * np.abs(d).max(), (error, result)


def promise(name: str, which: str, seeds: range) -> None:
    d = spectra(N)[name]
    dtypes = (torch.float64, torch.float32)
    for i, k in enumerate((1, 5, 10)):
        for seed in seeds:
            for dtype in dtypes if len(seeds) == 1 else (dtypes[(i + seed) % 2],):  # every pair of the three
                A = DiagonalOperator(d, dtype)
                result = eigsh(A, k, which=which, generator=seeded_generator(seed))
                assert len(result.values) == k
                assert result.matvecs == A.matvecs
                check(result, d, which)


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("name", list(spectra(N)))
def test_promise(name: str, which: str) -> None:
    promise(name, which, range(1 if which == "SA" else 3))  # the low end is a bulk: long runs


@pytest.mark.slow
@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("name", list(spectra(N)))
def test_promise_every_time(name: str, which: str) -> None:
    promise(name, which, range(100, 120))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["triple", "indefinite", "deficient"])
def test_values_vectors_and_residuals_against_lapack(name: str, dtype: torch.dtype) -> None:
    A = matrix(spectra(N)[name]).to(dtype)
    oracle = scipy.linalg.eigh(A.double().numpy(), eigvals_only=True)
    tol = 1e-3
    for seed in range(3):
        result = eigsh(MatrixOperator(A), 9, tol=tol, generator=seeded_generator(seed))
        check(result, oracle, "LA", tol)
        assert result.values.dtype == torch.float64
        assert result.vectors.dtype == dtype
        V = result.vectors.double()
        assert (V.T @ V - torch.eye(9)).abs().max() < 100 * torch.finfo(dtype).eps
        true = (A.double() @ V - V * result.values).norm(dim=0)
        assert (true <= result.residuals).all()
        assert (result.residuals <= tol * np.abs(oracle).max()).all()


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_sharp_tolerances(dtype: torch.dtype, tol: float) -> None:
    A = matrix(spectra(N)["outliers"]).to(dtype)
    oracle = scipy.linalg.eigh(A.double().numpy(), eigvals_only=True)
    result = eigsh(MatrixOperator(A), 5, tol=tol, generator=seeded_generator(0))
    check(result, oracle, "LA", tol)
    V = result.vectors.double()
    assert ((A.double() @ V - V * result.values).norm(dim=0) <= result.residuals).all()


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_multiplicity_for_every_block(block: int) -> None:
    d = spectra(N)["triple"]
    for seed in range(5):
        for k in (1, 3, 4, 9):
            check(eigsh(DiagonalOperator(d), k, block=block, generator=seeded_generator(seed)), d, "LA")


def test_warm_starts_are_cheap_and_safe() -> None:
    d = spectra(1000)["outliers"]
    cold = eigsh(DiagonalOperator(d), 5, generator=seeded_generator(0))
    warm = eigsh(DiagonalOperator(d * 1.0001), 5, v0=cold.vectors, generator=seeded_generator(1))
    check(warm, d * 1.0001, "LA")
    assert warm.matvecs < cold.matvecs
    summed = eigsh(DiagonalOperator(d), 5, v0=cold.vectors.sum(dim=1), generator=seeded_generator(1))
    check(summed, d, "LA")
    # exact eigenvectors that are not the wanted ones, a zero and a dependent column
    E = torch.eye(1000, dtype=torch.float64)[:, 3:8]
    v0 = torch.cat([E, E[:, :1] + E[:, 1:2], torch.zeros(1000, 1, dtype=torch.float64)], dim=1)
    for seed in range(10):
        check(eigsh(DiagonalOperator(d), 5, v0=v0, generator=seeded_generator(seed)), d, "LA")


def test_a_start_that_hides_the_top_is_not_believed() -> None:
    # from `part` of the top direction the residual of the second is small when that of the first is not seen
    d = spectra(1000)["outliers"]
    for seed, part in enumerate([0.0, 1e-8, 1e-4, 3e-3, 1e-2, 0.1] * 5):
        v0 = torch.zeros(1000, dtype=torch.float64)
        v0[1], v0[0] = 1.0, part
        v0 = v0 + 0.003 * torch.randn(1000, dtype=torch.float64, generator=seeded_generator(100 + seed)) / 30
        check(eigsh(DiagonalOperator(d), 1, v0=v0, generator=seeded_generator(seed)), d, "LA")


@pytest.mark.parametrize("name", ["outliers", "triple", "indefinite", "decaying"])
@pytest.mark.parametrize("columns", [26, 40])
def test_restarts_in_little_memory(name: str, columns: int) -> None:
    d = spectra(N)[name]
    for which in ("LA", "LM"):
        for seed in range(4):
            A = DiagonalOperator(d, memory=columns * N * 8)
            check(eigsh(A, 4, which=which, generator=seeded_generator(seed), basis="device"), d, which)
    with pytest.raises(MemoryError, match="k = 4"):
        eigsh(DiagonalOperator(d, memory=8 * N * 8), 4, basis="device")


def test_tiny_zero_and_deficient_matrices() -> None:
    one = eigsh(MatrixOperator(torch.tensor([[-3.0]])), 1)
    assert one.values.tolist() == [-3.0]
    assert one.converged
    zero = eigsh(MatrixOperator(torch.zeros(20, 20)), 3)
    assert zero.converged
    assert zero.values.abs().max() == 0
    assert zero.vectors.shape == (20, 3)
    A = matrix(np.array([4.0, 3.0, 3.0, -1.0]))
    whole = eigsh(MatrixOperator(A), 4)
    assert torch.allclose(whole.values, torch.tensor([4.0, 3.0, 3.0, -1.0], dtype=torch.float64), atol=1e-12)
    d = np.zeros(50)
    d[:3] = [5.0, 2.0, 2.0]
    check(eigsh(DiagonalOperator(d), 12, generator=seeded_generator(0)), d, "LA")
    identity = eigsh(MatrixOperator(torch.eye(40)), 6)
    assert identity.converged
    assert torch.allclose(identity.values, torch.ones(6, dtype=torch.float64), atol=1e-5)


def test_no_convergence_gives_what_there_is() -> None:
    d = spectra(N)["outliers"]
    few = eigsh(DiagonalOperator(d), 5, max_matvecs=3, generator=seeded_generator(0))
    assert not few.converged
    assert few.values.shape == (3,)
    some = eigsh(DiagonalOperator(d), 5, max_matvecs=8, generator=seeded_generator(0))
    assert not some.converged
    assert (some.values.shape, some.vectors.shape, some.matvecs) == ((5,), (N, 5), 8)
    calls: list[tuple[int, int, float]] = []

    def stop(done: int, planned: int, top: float) -> bool:
        calls.append((done, planned, top))
        return done >= 6

    stopped = eigsh(DiagonalOperator(d), 2, callback=stop, generator=seeded_generator(0))
    assert stopped.matvecs == 6
    assert not stopped.converged
    assert [c[0] for c in calls] == [1, 2, 3, 4, 5, 6]
    assert calls[-1][2] == stopped.values[0]


def test_unreachable_tolerance_stops_early() -> None:
    A = matrix(spectra(N)["outliers"])
    low = eigsh(MatrixOperator(A.float()), 3, tol=1e-9, generator=seeded_generator(0))
    assert not low.converged
    assert low.matvecs < 100
    noisy = eigsh(NoisyOperator(A, 1e-3), 3, tol=1e-4, generator=seeded_generator(0))
    assert not noisy.converged
    assert noisy.matvecs < 100
    fine = eigsh(NoisyOperator(A, 1e-5), 3, tol=1e-3, generator=seeded_generator(0))
    check(fine, spectra(N)["outliers"], "LA")


def test_same_seed_same_numbers_and_global_state_untouched() -> None:
    A = DiagonalOperator(spectra(N)["outliers"])
    state = torch.get_rng_state()
    first = eigsh(A, 3)
    again = eigsh(A, 3, generator=seeded_generator(first.seed))
    assert torch.equal(first.values, again.values)
    assert torch.equal(state, torch.get_rng_state())


def test_refusals() -> None:
    A = MatrixOperator(torch.eye(5))
    for wrong in ({"k": 6}, {"k": 0}, {"which": "XX"}, {"tol": -1.0}, {"block": 0}, {"max_matvecs": 0}):
        with pytest.raises(ValueError, match=r"must|which"):
            eigsh(A, **{"k": 1, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        eigsh(A, 1, v0=torch.ones(4))
    with pytest.raises(ValueError, match="finite"):
        eigsh(A, 1, v0=torch.full((5,), float("inf")))
    with pytest.raises(FloatingPointError, match="finite"):
        eigsh(BrokenOperator(torch.eye(5)), 1)


def test_without_confirmation_a_copy_may_be_missed_and_the_result_says_so() -> None:
    """The top value three times: one chain sees one copy. Confirmed searches find all of them (tests above)."""
    values = torch.cat([torch.tensor([2.0, 2.0, 2.0]), 1.0 / torch.arange(2, 99, dtype=torch.float64)])
    A = MatrixOperator(torch.diag(values))
    quick = eigsh(A, 3, tol=1e-6, confirm=False, generator=torch.Generator().manual_seed(0))
    whole = eigsh(A, 3, tol=1e-6, generator=torch.Generator().manual_seed(0))
    assert quick.converged
    assert not quick.confirmed
    assert whole.converged
    assert whole.confirmed
    assert quick.matvecs < whole.matvecs
    assert whole.values.tolist() == pytest.approx([2.0, 2.0, 2.0])


def test_a_warm_start_is_never_much_dearer_and_follows_small_changes_for_little() -> None:
    """Top 5 of a slowly turning matrix: fewer products than cold; of one that has nothing to do with the last: two more
    at most."""
    g = torch.Generator().manual_seed(0)
    n = 200
    values = torch.cat([torch.tensor([9.0, 7.0, 6.0, 5.0, 4.0]), torch.rand(n - 5, generator=g).double()])
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q
    turn = torch.randn(n, n, generator=g, dtype=torch.float64)
    small = torch.matrix_exp(1e-4 * (turn - turn.T))
    other = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q
    last = eigsh(MatrixOperator(Q * values @ Q.T), 5, tol=1e-2, generator=g).vectors
    for basis, most in ((small @ Q, 0.5), (other, None)):
        A = MatrixOperator(0.5 * ((basis * values @ basis.T) + (basis * values @ basis.T).T))
        for seed in range(10):
            cold = eigsh(A, 5, tol=1e-2, confirm=False, generator=torch.Generator().manual_seed(seed))
            warm = eigsh(A, 5, tol=1e-2, v0=last, confirm=False, generator=torch.Generator().manual_seed(seed))
            assert warm.converged
            assert torch.allclose(warm.values, values[:5].double(), atol=9e-2)
            assert warm.matvecs <= (cold.matvecs + 2 if most is None else most * cold.matvecs + 1)


def test_warm_starts_along_a_training_run_with_the_proof() -> None:
    """Top 5 of the digits MLP's Hessian: what a warm start saves, with the proof, and that it never costs much more."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    loss = torch.nn.functional.cross_entropy
    H = Hessian(Objective(net, loss, (x, y)))

    def train(steps: int, lr: float) -> None:
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()

    def follow(count: int, steps: int, lr: float, tol: float) -> tuple[list[int], list[int]]:
        last, warm, cold = eigsh(H, 5, tol=tol, generator=seeded_generator(0)).vectors, [], []
        for i in range(count):
            train(steps, lr)
            found = eigsh(H, 5, tol=tol, v0=last, generator=seeded_generator(i))
            anew = eigsh(H, 5, tol=tol, generator=seeded_generator(100 + i))
            assert found.confirmed
            assert torch.allclose(found.values, anew.values, atol=tol * float(anew.values[0]))
            last = found.vectors
            warm.append(found.matvecs)
            cold.append(anew.matvecs)
        return warm, cold

    warm, cold = follow(4, 1, 0.01, 1e-2)  # the first steps: most of both is the proof
    assert sum(warm) <= 0.7 * sum(cold)
    train(120, 0.1)
    warm, cold = follow(6, 10, 0.1, 1e-3)
    assert sum(warm) <= 0.95 * sum(cold)
    assert max(a - b for a, b in zip(warm, cold, strict=True)) <= 2
