"""f(A) b against dense matrices in float64, within the stated error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spectra_cases import BrokenOperator, DiagonalOperator, NoisyOperator, matrix, seeded_generator, spectra
from torch import nn

from landscape import GaussNewton, MatrixOperator, Objective
from landscape.spectra import apply, solve

N = 120
SPECTRA = {name: np.abs(values) for name, values in spectra(N).items()}
SPECTRA["flat"] = np.linspace(0.5, 2.0, N)
SPECTRA["ten digits"] = np.logspace(2, -8, N)
FUNCTIONS = {"sqrt": torch.sqrt, "log": torch.log, "inverse-sqrt": torch.rsqrt, "exp": lambda x: torch.exp(-x)}


def vectors(k=None, seed=5):
    return torch.randn(*((N,) if k is None else (N, k)), dtype=torch.float64, generator=seeded_generator(seed))


def dense(f, d, b):
    """f of a diagonal matrix, times b."""
    return f(torch.as_tensor(d, dtype=torch.float64)).reshape(-1, *[1] * (b.ndim - 1)) * b.double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("vectors_that_fit", [1000, 26])
@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_value_is_within_the_stated_error(name, f, vectors_that_fit, dtype):
    d = SPECTRA[name] + (0.0 if f in ("sqrt", "exp") else 0.02 * SPECTRA[name].max())
    A = DiagonalOperator(d, dtype, memory=vectors_that_fit * N * dtype.itemsize)
    b, tol = vectors(), 1e-4 if dtype == torch.float64 else 1e-2
    found = apply(A, FUNCTIONS[f] if f == "exp" else f, b, tol=tol, basis="device")
    true = dense(FUNCTIONS[f], A.d[:, 0], b)
    error = float((found.value.double() - true).norm() / true.norm())
    assert error <= found.error
    assert found.value.dtype == dtype
    assert found.converged == (found.error <= tol)
    assert found.footprint.vectors <= vectors_that_fit * N * dtype.itemsize
    # a root at zero of ten digits takes all steps, which do not find float32's small eigenvalues
    assert found.converged or (f == "sqrt" and (vectors_that_fit < 1000 or dtype == torch.float32))
    if vectors_that_fit == 1000:
        assert found.matvecs <= N
        assert found.error < 3e-2


def test_a_block_is_its_columns():
    M = matrix(SPECTRA["outliers"] + 0.01)
    B = vectors(3) * torch.tensor([1.0, 0.0, 1e-8], dtype=torch.float64)
    found = apply(MatrixOperator(M), "sqrt", B)
    assert found.converged
    assert found.error.shape == (3,)
    assert (float(found.error[1]), float(found.value[:, 1].norm())) == (0.0, 0.0)
    for i in (0, 2):
        alone = apply(MatrixOperator(M), "sqrt", B[:, i])
        torch.testing.assert_close(found.value[:, i], alone.value, rtol=1e-9, atol=1e-16)
    twice = apply(MatrixOperator(M), "sqrt", found.value)
    torch.testing.assert_close(twice.value, M @ B, rtol=0, atol=1e-5 * float((M @ B).norm()))


def test_logarithm_and_exponential_undo_each_other():
    M, b = matrix(SPECTRA["flat"]), vectors()
    logarithm = torch.linalg.eigh(M)
    L = MatrixOperator((logarithm.eigenvectors * logarithm.eigenvalues.log()) @ logarithm.eigenvectors.T)
    torch.testing.assert_close(apply(L, torch.exp, b).value, M @ b, rtol=1e-5, atol=1e-6)
    half = apply(MatrixOperator(M), "inverse-sqrt", b, tol=1e-9).value
    whole = apply(MatrixOperator(M), "inverse-sqrt", half, tol=1e-9).value
    torch.testing.assert_close(whole, solve(MatrixOperator(M), b, tol=1e-9).x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("f", ["sqrt", "log", "inverse-sqrt"])
def test_a_negative_ritz_value_is_named(f):
    d = np.linspace(-0.25, 1, N)
    with pytest.raises(ValueError, match=rf"{f} needs a positive semi-definite matrix: a Ritz value of -0\.2\d+ was"):
        apply(DiagonalOperator(d), f, vectors())
    rounded = DiagonalOperator(np.r_[np.full(40, -1e-17), np.linspace(0.5, 1, N - 40)])
    found = apply(rounded, "sqrt", vectors())
    torch.testing.assert_close(found.value, dense(torch.sqrt, rounded.d[:, 0].clamp(min=0), vectors()))
    if f != "sqrt":
        with pytest.raises(ValueError, match=f"{f} needs a positive definite matrix: a Ritz value of"):
            apply(rounded, f, vectors())


def test_the_inverse_root_needs_a_gap():
    singular = np.r_[np.zeros(40), np.linspace(0.5, 2, N - 40)]
    root = np.r_[np.zeros(40), np.linspace(0.5, 2, N - 40) ** -0.5]
    found = apply(DiagonalOperator(singular), "inverse-sqrt", vectors(), gap=0.5)
    torch.testing.assert_close(found.value, torch.from_numpy(root) * vectors(), rtol=1e-5, atol=1e-6)
    assert found.converged
    with pytest.raises(ValueError, match=r"an eigenvalue of 0\.\d+ lies between 0 and gap = 0.8"):
        apply(DiagonalOperator(singular), "inverse-sqrt", vectors(), gap=0.8)
    with pytest.raises(ValueError, match="positive definite"):
        apply(DiagonalOperator(singular), "inverse-sqrt", vectors())
    # met: the least eigenvalue stands alone, and is found; not met: nothing says that there are no smaller ones
    met = apply(DiagonalOperator(np.r_[1e-3, np.linspace(0.5, 2, N - 1)]), "inverse-sqrt", vectors())
    assert met.converged
    assert met.lowest == pytest.approx(1e-3, rel=1e-6)
    unmet = apply(DiagonalOperator(np.logspace(0, -12, N)), "inverse-sqrt", vectors(), max_matvecs=30)
    assert not unmet.converged
    assert math.isinf(unmet.error)


def test_of_a_network_and_of_noise():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    f = Objective(model, nn.CrossEntropyLoss(), (torch.randn(40, 5).double(), torch.randint(0, 3, (40,))))
    G, g = GaussNewton(f), f.gradient()
    values, U = torch.linalg.eigh(G.to_dense())
    found = apply(G, "sqrt", g, tol=1e-5)
    true = U @ (values.clamp(min=0).sqrt() * (U.T @ g))
    assert float((found.value - true).norm() / true.norm()) <= found.error <= 1e-5
    assert found.checked is not None
    noisy = apply(NoisyOperator(matrix(SPECTRA["flat"]), 1e-3), "log", vectors(), tol=1e-4)
    assert not noisy.converged
    exact = matrix(SPECTRA["flat"])
    eigen = torch.linalg.eigh(exact)
    true = eigen.eigenvectors @ (eigen.eigenvalues.log() * (eigen.eigenvectors.T @ vectors()))
    assert float((noisy.value - true).norm() / true.norm()) <= noisy.error


def test_a_process_runs_twice_only_where_it_has_outgrown_its_basis():
    b = vectors()
    for name, f, runs in (("flat", "sqrt", 1), ("outliers", "sqrt", 2)):
        roomy, tight = (DiagonalOperator(SPECTRA[name], memory=m * N * 8) for m in (1000, 26))
        once, found = (apply(A, f, b, tol=1e-4, basis="device") for A in (roomy, tight))
        assert found.matvecs == runs * once.matvecs
        torch.testing.assert_close(found.value, once.value, rtol=0, atol=1e-4 * float(once.value.norm()))
    part = apply(tight, "sqrt", b, max_matvecs=60, basis="device")
    assert part.matvecs <= 60


def test_stopping_and_refusals():
    A, b = DiagonalOperator(SPECTRA["range"]), vectors(2)
    calls = []
    found = apply(A, "sqrt", b, tol=1e-2, callback=lambda *call: calls.append(call))
    assert [made for made, *_ in calls][-1] == found.matvecs < 2 * N
    assert calls[0][1] == 2 * N
    assert calls[-1][2].name == "error"
    part = apply(A, "sqrt", b, callback=lambda made, *_: made >= 24)
    assert (part.matvecs, part.converged) == (24, False)
    assert "not converged" in str(part)
    few = apply(A, "sqrt", b, max_matvecs=30)
    assert few.matvecs == 30
    assert not few.converged
    assert apply(A, "sqrt", b[:, :0]).value.shape == (N, 0)
    loose = apply(A, "sqrt", b, tol=0.3)
    assert loose.matvecs < found.matvecs
    for wrong, words in (
        ({"tol": 0.0}, "tol is positive"),
        ({"gap": 0.1}, 'for "inverse-sqrt"'),
        ({"max_matvecs": 1}, "at least one for each"),
        ({"b": torch.ones(3)}, "a vector for this operator has shape"),
        ({"f": "cube"}, "not 'cube'"),
        ({"b": b * torch.inf}, "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            apply(A, **{"f": "sqrt", "b": b, **wrong})
    with pytest.raises(FloatingPointError, match="finite"):
        apply(BrokenOperator(torch.eye(9)), "sqrt", torch.ones(9))
    with pytest.raises(MemoryError, match="a function of a matrix needs"):
        apply(DiagonalOperator(SPECTRA["range"], memory=3 * N * 8), "sqrt", vectors(), basis="device")
