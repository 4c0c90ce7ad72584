"""All eigenvalues above a threshold, and both ends at once: none missed and none too many on designed spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra_cases import DiagonalOperator, NoisyOperator, ShardedOperator, best, matrix, seeded_generator, spectra

from landscape.operators.matrix import MatrixOperator
from landscape.spectra import Eigenpairs, eigsh

N = 200
TOL = 1e-3


def thresholds() -> dict[str, tuple[np.ndarray, float]]:
    """Spectra with what is asked of them, by the name of what is hard about it."""
    s = spectra(N)
    edge = s["outliers"].copy()
    edge[:6] = [1.0, 0.8, 0.6 + 0.9e-3, 0.6, 0.6 - 0.9e-3, 0.5]  # around 0.6, within tol of 1.0
    hidden = s["outliers"].copy()
    hidden[3:6] = 0.6 + 0.999e-3  # copies, of which the first process sees one: closer to c + tol than any chain tells
    flat = np.r_[2.0, np.full(N - 1, 1.0)]
    return {
        "outliers, a few": (s["outliers"], 0.65),
        "outliers, all ten": (s["outliers"], 0.2),
        "outliers, none": (s["outliers"], 1.5),
        "just below the largest": (s["outliers"], 0.997),
        "just above the largest": (s["outliers"], 1.003),
        "the largest itself": (s["outliers"], 1.0),
        "copies": (s["triple"], 0.55),
        "copies, all": (s["triple"], 0.3),
        "copies at the threshold": (s["triple"], 0.5),
        "clusters": (s["clustered"], 0.8),
        "clusters around it": (s["clustered"], 0.5),
        "at c +- tol": (edge, 0.6),
        "copies just within the margin": (hidden, 0.6),
        "indefinite": (s["indefinite"], 0.5),
        "indefinite, the largest is negative": (-s["indefinite"], 0.35),
        "indefinite, below zero": (spectra(60)["indefinite"], -0.35),
        "low rank": (s["deficient"], 0.2),
        "low rank, above zero": (s["deficient"], 0.0),
        "decaying": (s["decaying"], 0.03),
        "exponential, many": (s["exponential"], 0.003),
        "all above": (np.linspace(1.0, 2.0, 60), 0.5),
        "flat": (flat, 1.5),
        "zero": (np.zeros(N), 0.1),
        "zero, above zero": (np.zeros(N), 0.0),
    }


def check(found: Eigenpairs, d: np.ndarray, c: float, tol: float = TOL) -> None:
    """All above c + tol, none below c - tol, each within tol of the true one; what is between is marked."""
    d = np.sort(d)[::-1]
    margin = tol * np.abs(d).max()
    slack = 1e-9 * np.abs(d).max()  # of a value that lies on the edge of the margin
    count, values = len(found.values), found.values.numpy()
    assert found.converged, found
    assert found.confirmed
    assert not found.more
    assert (d > c + margin + slack).sum() <= count <= (d >= c - margin - slack).sum(), (count, found)
    assert np.abs(values - d[:count]).max(initial=0.0) <= margin + slack
    assert found.marginal is not None
    assert found.marginal.shape == (count,)
    assert (found.marginal.numpy() == (np.abs(values - c) <= margin + slack)).all() or margin == 0.0
    assert (values[~found.marginal.numpy()] > c).all()
    assert found.above == c


@pytest.mark.parametrize("name", thresholds())
def test_none_is_missed_and_none_too_many(name: str) -> None:
    d, c = thresholds()[name]
    for dtype in (torch.float64, torch.float32):
        for seed in range(2):
            A = DiagonalOperator(d, dtype)
            found = eigsh(A, above=c, generator=seeded_generator(seed))
            check(found, d, c)
            assert found.matvecs == A.matvecs - bool(found.note)  # one to say why all is zero
            assert found.matvecs <= 3 * (12 + 2 * len(found.values)), "far more than the right number of pairs takes"


@pytest.mark.slow
@pytest.mark.parametrize("name", thresholds())
def test_none_is_missed_every_time(name: str) -> None:
    d, c = thresholds()[name]
    for seed in range(100, 130):
        for block in (None, 3):
            check(eigsh(DiagonalOperator(d), above=c, block=block, generator=seeded_generator(seed)), d, c)
        start = torch.randn(len(d), 4, dtype=torch.float64, generator=seeded_generator(seed))
        check(eigsh(DiagonalOperator(d), above=c, v0=start, generator=seeded_generator(seed)), d, c)


def test_it_costs_about_what_the_right_number_costs_that_nobody_knows() -> None:
    cases = [
        ("outliers", 0.65, 5),
        ("triple", 0.4, 9),
        ("indefinite", 0.5, 7),
        ("decaying", 0.1, 4),
        ("exponential", 0.3, 7),
    ]
    made, needed = 0, 0
    for name, c, k in cases:
        d = spectra(N)[name]
        assert (d > c).sum() == k
        for seed in range(3):
            made += eigsh(DiagonalOperator(d), above=c, generator=seeded_generator(seed)).matvecs
            needed += eigsh(DiagonalOperator(d), k, generator=seeded_generator(seed)).matvecs
    assert made <= 1.15 * needed


def test_that_there_is_none_costs_less_than_the_largest() -> None:
    d = spectra(N)["outliers"]
    for seed in range(3):
        none = eigsh(DiagonalOperator(d), above=1.2, generator=seeded_generator(seed))
        one = eigsh(DiagonalOperator(d), 1, generator=seeded_generator(seed))
        assert (none.values.shape, none.vectors.shape, none.residuals.shape) == ((0,), (N, 0), (0,))
        assert none.matvecs < one.matvecs
        assert str(none).startswith("none above 1.2 (")


def test_warm_starts_follow_a_number_that_changes() -> None:
    """A spectrum that moves through the threshold, slowly turning, as at the edge of stability."""
    g = seeded_generator(0)
    d = spectra(N)["outliers"]
    Q = torch.linalg.qr(torch.randn(N, N, generator=g, dtype=torch.float64)).Q
    turn = torch.randn(N, N, generator=g, dtype=torch.float64)
    step = torch.matrix_exp(3e-5 * (turn - turn.T))
    warm = None
    made, fixed, numbers = 0, 0, []
    last = None
    for i in range(12):
        Q = step @ Q
        moved = d * (1.0 + 0.35 * np.sin(i))
        A = MatrixOperator(Q * torch.from_numpy(moved) @ Q.T)
        found = eigsh(A, above=0.8, v0=warm, generator=seeded_generator(i))
        check(found, moved, 0.8)
        right = eigsh(A, max(1, len(found.values)), v0=last, generator=seeded_generator(i))
        warm, last = found.vectors if len(found.values) else warm, right.vectors
        made, fixed, numbers = made + found.matvecs, fixed + right.matvecs, [*numbers, len(found.values)]
    assert {0, 1, 4} <= set(numbers)
    assert made <= 1.3 * fixed


def test_a_chain_that_can_prove_nothing_is_given_up() -> None:
    """Many pairs closer than tol, from a start that mixes them: what they leave beside them reaches beyond c + tol.

    A chain would never end there, until the basis is full and less than a proof has to do.
    """
    n = 400
    close = [43, 36, 29, 25, 21, 15.6, 14.9, 12.9, 10.6, 7.7, 6.5, 3.3, 3.04, 1.04, 0.95, -1.2, -2.6]
    small = 0.01 * np.random.default_rng(1).random(n - 97)
    d = np.r_[2.5 + 0.01 * np.array(close), np.linspace(2.44, 0.0, 80), small]
    for seed in (0, 2, 3, 4):
        g = seeded_generator(seed)
        mixed = torch.eye(n, 16, dtype=torch.float64) + 0.005 * torch.randn(n, 16, generator=g, dtype=torch.float64)
        found = eigsh(DiagonalOperator(d), above=2.5, tol=1e-2, v0=torch.linalg.qr(mixed).Q, generator=g)
        check(found, d, 2.5, 1e-2)
        assert found.matvecs < 128


def test_a_start_without_columns_is_none() -> None:
    d = spectra(N)["outliers"]
    none = torch.zeros(N, 0, dtype=torch.float64)
    found = eigsh(DiagonalOperator(d), above=0.65, v0=none, generator=seeded_generator(0))
    cold = eigsh(DiagonalOperator(d), above=0.65, generator=seeded_generator(0))
    assert torch.equal(found.values, cold.values)


def test_a_number_beside_it_is_the_most() -> None:
    d = spectra(N)["outliers"]
    capped = eigsh(DiagonalOperator(d), 3, above=0.65, generator=seeded_generator(0))
    assert (capped.converged, capped.confirmed, capped.more) == (False, True, True)
    np.testing.assert_allclose(capped.values.numpy(), best(d, "LA", 3), atol=TOL)
    assert "above 0.65, and more than these 3" in str(capped)
    for most in (5, 12):
        check(eigsh(DiagonalOperator(d), most, above=0.65, generator=seeded_generator(0)), d, 0.65)


def test_memory_is_the_most_as_well() -> None:
    d = np.r_[np.linspace(1.0, 2.0, 60), np.zeros(N - 60)]
    tight = eigsh(DiagonalOperator(d, memory=40 * N * 8), above=0.5, basis="device", generator=seeded_generator(0))
    assert not tight.converged
    assert tight.more
    assert 8 <= len(tight.values) < 20
    np.testing.assert_allclose(tight.values.numpy(), best(d, "LA", len(tight.values)), atol=TOL * 2)
    with pytest.raises(MemoryError):
        eigsh(DiagonalOperator(d, memory=5 * N * 8), above=0.5, basis="device")


@pytest.mark.parametrize("basis", ["device", "host", "disk"])
def test_the_basis_grows_with_the_number(basis: str) -> None:
    n = 400
    d = np.r_[np.linspace(1.0, 3.0, 90), 0.01 * np.linspace(-1.0, 1.0, n - 90)]  # more than the 128 columns of a few
    found = eigsh(DiagonalOperator(d), above=0.5, basis=basis, generator=seeded_generator(0))  # type: ignore[arg-type]
    check(found, d, 0.5)
    V = found.vectors
    assert (V.T @ V - torch.eye(90, dtype=V.dtype)).abs().max() < 1e-12
    true = (torch.from_numpy(d)[:, None] * V - V * found.values).norm(dim=0)
    assert (true <= found.residuals).all()


def test_where_products_end_there_is_what_there_is() -> None:
    d = spectra(N)["outliers"]
    few = eigsh(DiagonalOperator(d), above=0.2, max_matvecs=6, generator=seeded_generator(0))
    assert (few.converged, few.confirmed, few.matvecs) == (False, False, 6)
    seen: list[int] = []
    stopped = eigsh(DiagonalOperator(d), above=0.2, callback=lambda made, *_: seen.append(made) or made == 8)
    assert (stopped.converged, stopped.matvecs) == (False, 8)
    assert seen == list(range(1, 9))
    quick = eigsh(DiagonalOperator(d), above=0.65, confirm=False, generator=seeded_generator(0))
    assert (len(quick.values), quick.converged, quick.confirmed) == (5, True, False)


def test_noise_widens_the_margin() -> None:
    A = matrix(spectra(N)["outliers"])
    rough = eigsh(NoisyOperator(A, 1e-2), above=0.65, tol=1e-4, generator=seeded_generator(0))
    assert not rough.converged
    fine = eigsh(NoisyOperator(A, 1e-5), above=0.65, generator=seeded_generator(0))
    check(fine, spectra(N)["outliers"], 0.65)
    sharded = ShardedOperator(A)
    found = eigsh(sharded, above=0.65, generator=seeded_generator(0))
    check(found, spectra(N)["outliers"], 0.65)


def test_the_first_of_them() -> None:
    d = spectra(N)["outliers"]
    found = eigsh(DiagonalOperator(d), above=float(np.sort(d)[-3]), generator=seeded_generator(0))
    assert found.marginal is not None
    assert found.marginal.tolist() == [False, False, True]
    first = found.first(2)
    assert first.marginal is not None
    assert (first.values.tolist(), first.marginal.tolist()) == (found.values[:2].tolist(), [False, False])


# -- both ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(spectra(N)))
def test_both_ends_in_turn(name: str) -> None:
    d = spectra(N)[name]
    if name in ("outliers", "triple", "clustered"):
        d = np.r_[d[: N // 2], -0.7 * d[: N // 2]]  # two ends that are hard in the same way
    high, low = np.sort(d)[::-1], np.sort(d)
    for k in (1, 2, 5, 8):
        for seed in range(2):
            A = DiagonalOperator(d)
            found = eigsh(A, k, which="BE", generator=seeded_generator(seed))
            expected = np.stack([high[:k], low[:k]], axis=1).ravel()[:k]  # the larger half from the high end
            assert found.converged
            assert found.confirmed
            assert found.matvecs == A.matvecs
            assert np.abs(found.values.numpy() - expected).max() <= TOL * np.abs(d).max()


def test_both_ends_against_scipy_and_all_of_a_small_matrix() -> None:
    from scipy.sparse.linalg import eigsh as scipy_eigsh

    A = matrix(spectra(N)["indefinite"])
    ours = eigsh(MatrixOperator(A), 7, which="BE", tol=1e-8, generator=seeded_generator(0))
    theirs = scipy_eigsh(A.numpy(), 7, which="BE", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(ours.values.numpy()), np.sort(theirs), atol=1e-7)
    whole = eigsh(MatrixOperator(matrix(np.array([4.0, 3.0, 3.0, -1.0, -2.0]))), 5, which="BE")
    np.testing.assert_allclose(whole.values.numpy(), [4.0, -2.0, 3.0, -1.0, 3.0], atol=1e-12)


def test_both_ends_from_a_start_that_hides_one() -> None:
    d = spectra(N)["indefinite"]
    order = np.argsort(-d)
    E = torch.eye(N, dtype=torch.float64)[:, order[:4].copy()]  # the high end only
    for seed in range(5):
        found = eigsh(DiagonalOperator(d), 6, which="BE", v0=E, generator=seeded_generator(seed))
        assert found.converged
        assert np.abs(found.values[1::2].numpy() - np.sort(d)[:3]).max() <= TOL


# -- what is refused ------------------------------------------------------------------------------------------


def test_refusals() -> None:
    A = MatrixOperator(torch.eye(5))
    for which in ("SA", "LM", "BE"):
        with pytest.raises(ValueError, match=r"eigsh\(-A, above=-c\)"):
            eigsh(A, above=0.5, which=which)
    for above in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match="above must be finite"):
            eigsh(A, above=above)
    with pytest.raises(ValueError, match="k must be"):
        eigsh(A, 6, above=0.5)
    below = eigsh(-1.0 * A, above=-2.0)
    np.testing.assert_allclose(-below.values.numpy(), np.ones(5), atol=1e-5)
