"""Traces of functions against dense matrices in float64, and against their own error bars."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spectra_cases import BrokenOperator, DiagonalOperator, NoisyOperator, matrix, seeded_generator, spectra
from torch import nn

from landscape import GaussNewton, Hessian, MatrixOperator, Objective
from landscape.spectra import effective_dimension, local_effective_dimension, logdet, trace_of
from landscape.spectra.functions import spectral_sum

N = 160
SPECTRA = {name: np.abs(values) for name, values in spectra(N).items()}
SPECTRA["flat"] = np.linspace(0.5, 2.0, N)
SPECTRA["ten digits"] = np.logspace(2, -8, N)
MATRICES = {name: matrix(values, seed=7) for name, values in SPECTRA.items()}
FUNCTIONS = {
    "log(x + 0.01)": lambda x: torch.log(x + 0.01),
    "x / (x + 0.1)": lambda x: x / (x + 0.1),
    "exp(-x)": lambda x: torch.exp(-x),
    "sqrt": "sqrt",
}


def of(f, values):
    t = torch.as_tensor(values, dtype=torch.float64)
    return float((t.sqrt() if f == "sqrt" else f(t)).sum())


def operator(name, **options):
    A = MatrixOperator(MATRICES[name], memory=1 << 30, **options)
    A.positive_semidefinite = True
    return A


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("f", FUNCTIONS)
def test_exact_when_products_reach_n(name, f):
    found = trace_of(operator(name), FUNCTIONS[f])
    true = of(FUNCTIONS[f], SPECTRA[name])
    assert abs(found.value - true) <= found.stderr
    assert found.stderr < (1e-5 if f == "sqrt" else 1e-10) * abs(true)  # sqrt is steep at 0
    assert (found.matvecs, found.converged, found.probes) == (N, True, 0)


@pytest.mark.parametrize("seeds", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_truth_lies_within_two_standard_errors(seeds):
    inside = {}
    for i, name in enumerate(SPECTRA):
        f = list(FUNCTIONS.values())[i % len(FUNCTIONS)]
        runs = [trace_of(operator(name), f, matvecs=48, generator=seeded_generator(s)) for s in range(seeds)]
        true = of(f, SPECTRA[name])
        inside[name] = np.mean([abs(r.value - true) <= 2 * r.stderr for r in runs])
        assert all(r.matvecs <= 48 and r.converged for r in runs)
        scatter = np.sqrt(np.mean([(r.value - true) ** 2 for r in runs]))
        assert np.mean([r.stderr for r in runs]) < 5 * scatter + 1e-5 * abs(true)
    assert np.mean(list(inside.values())) >= 0.9, inside
    assert min(inside.values()) >= (0.6 if seeds == 5 else 0.85), inside


@pytest.mark.parametrize(("name", "rtol"), [("outliers", 0.02), ("range", 0.1), ("flat", 0.01)])
@pytest.mark.parametrize("seeds", [6, pytest.param(80, marks=pytest.mark.slow)])
def test_stops_on_rtol(name, rtol, seeds):
    f = FUNCTIONS["log(x + 0.01)"] if name == "outliers" else torch.log1p
    A, true = DiagonalOperator(np.resize(SPECTRA[name], 600)), of(f, np.resize(SPECTRA[name], 600))
    A.positive_semidefinite = True
    runs = [trace_of(A, f, rtol=rtol, generator=seeded_generator(s)) for s in range(seeds)]
    assert all(r.converged and r.stderr <= rtol * abs(r.value) and r.matvecs < 400 for r in runs)
    assert np.mean([abs(r.value - true) <= 2 * r.stderr for r in runs]) >= (0.5 if seeds == 6 else 0.88)
    tight = trace_of(A, f, rtol=1e-8, matvecs=2000, generator=seeded_generator(0))
    assert tight.converged  # by the whole matrix
    assert tight.matvecs < 2000
    assert tight.value == pytest.approx(true, rel=1e-8)


def test_the_error_of_few_steps_is_carried_and_said():
    """log(x + 1e-6) of ten digits needs thousands of steps: what is missing is no matter of more random vectors.

    And fewer steps do not tell of it: at ten they differ by a third of what is missing. A node at 0 does.
    """
    f, name = (lambda x: torch.log(x + 1e-6)), "ten digits"
    runs = [trace_of(operator(name), f, matvecs=60, generator=seeded_generator(s)) for s in range(8)]
    true = of(f, SPECTRA[name])
    assert all(0.3 * r.stderr < r.value - true < r.stderr for r in runs)
    assert all(r.quadrature > 0.8 * r.stderr for r in runs)
    assert "few Lanczos steps" in str(max(runs, key=lambda r: r.quadrature / r.stderr))
    one = trace_of(operator(name), f, matvecs=3)
    assert math.isinf(one.stderr)  # a single step has nothing to be compared with


def test_without_a_known_end_the_difference_of_step_counts_is_carried():
    f, true = (lambda x: torch.log(x + 1e-4)), of(lambda x: torch.log(x + 1e-4), SPECTRA["range"])
    A = MatrixOperator(MATRICES["range"], memory=1 << 30)  # for all that is known indefinite
    runs = [trace_of(A, f, matvecs=60, generator=seeded_generator(s)) for s in range(8)]
    assert all(r.quadrature > 0.02 * abs(true) for r in runs)
    assert all(abs(r.value - true) <= 2 * r.stderr for r in runs)


def test_what_a_krylov_space_holds_need_not_be_sampled(monkeypatch):
    d = np.r_[np.linspace(100, 10, 10), 0.05 * np.abs(np.random.default_rng(0).standard_normal(490))]
    true = np.log1p(d).sum()

    def error():
        runs = [
            trace_of(DiagonalOperator(d), torch.log1p, matvecs=200, generator=seeded_generator(s)) for s in range(5)
        ]
        return np.sqrt(np.mean([(r.value - true) ** 2 for r in runs]))

    with_it = error()
    monkeypatch.setattr(spectral_sum, "_FEW", 10**9)
    assert with_it < 0.2 * error()


def test_copies_of_eigenvalues_are_found_one_process_after_another():
    d = np.r_[[3.0, 3.0, 3.0, 2.0, 2.0, 1.0], np.zeros(294)]
    found = trace_of(DiagonalOperator(d), torch.log1p, matvecs=100, generator=seeded_generator(0))
    assert found.value == pytest.approx(np.log1p(d).sum(), rel=1e-10)
    assert found.stderr < 1e-9
    assert found.matvecs < 50


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_log_determinants(name, dtype):
    A = MatrixOperator(MATRICES[name].to(dtype), memory=1 << 30)
    damping = 0.01 * SPECTRA[name].max()
    dense = MATRICES[name] + damping * torch.eye(N).double()
    true = float(torch.logdet(dense))
    exact = logdet(A, damping=damping)
    assert abs(exact.value - true) <= exact.stderr < (1e-8 if dtype == torch.float64 else 0.2) * N
    near = logdet(A, damping=damping, matvecs=100, generator=seeded_generator(1))
    assert abs(near.value - true) <= 3 * near.stderr
    assert near.lowest >= -1e-5
    assert near.highest == pytest.approx(SPECTRA[name].max(), rel=0.01)


def test_a_log_determinant_of_a_singular_or_indefinite_matrix_is_refused_with_the_value():
    d = np.linspace(-0.5, 1.0, N)
    for matvecs in (N, 80):
        with pytest.raises(ValueError, match=r"A \+ 0.3 I is indefinite: a Ritz value of A of -0\.(5|4[89])"):
            logdet(DiagonalOperator(d), damping=0.3, matvecs=matvecs)
    with pytest.raises(ValueError, match="A \\+ 0 I is singular within rounding: a Ritz value of A of"):
        logdet(DiagonalOperator(np.r_[np.zeros(3), np.ones(5)]))
    found = logdet(DiagonalOperator(d), damping=0.6)
    assert found.value == pytest.approx(np.log(d + 0.6).sum())
    psd = DiagonalOperator(np.r_[np.full(20, -1e-17), np.ones(30)])
    psd.positive_semidefinite = True  # so that what is below zero is rounding, however small the damping
    assert logdet(psd, damping=1e-12).value == pytest.approx(20 * math.log(1e-12) + 30 * math.log1p(1e-12))
    with pytest.raises(ValueError, match="singular"):
        logdet(psd)
    with pytest.raises(ValueError, match="damping is a finite number"):
        logdet(psd, damping=math.nan)


@pytest.mark.parametrize("name", ["outliers", "decaying", "ten digits"])
def test_effective_dimensions(name):
    d = SPECTRA[name]
    true = (d / (d + 0.03)).sum()
    assert effective_dimension(operator(name), 0.03).value == pytest.approx(true, rel=1e-9)
    near = effective_dimension(operator(name), 0.03, matvecs=100, generator=seeded_generator(0))
    assert abs(near.value - true) <= 3 * near.stderr < 2 * true
    samples, gamma = 5000, 0.7
    kappa = gamma * samples / (2 * math.pi * math.log(samples))
    fisher = torch.as_tensor(d * N / d.sum())
    local = float(torch.logdet(torch.eye(N).double() + kappa * torch.diag(fisher))) / math.log(kappa)
    assert local_effective_dimension(operator(name), samples, gamma=gamma).value == pytest.approx(local, rel=1e-9)
    assert local_effective_dimension(100 * operator(name), samples, gamma=gamma).value == pytest.approx(local)
    part = local_effective_dimension(operator(name), samples, gamma=gamma, matvecs=90, generator=seeded_generator(1))
    assert abs(part.value - local) <= 3 * part.stderr < local


def test_dimensions_refuse_what_has_none():
    A = DiagonalOperator(np.linspace(-1, 1, 30))
    with pytest.raises(ValueError, match=r"a Ritz value of A of -1 was met.*a damping above 1"):
        effective_dimension(A, 0.5)
    for damping in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="positive and finite"):
            effective_dimension(A, damping)
    with pytest.raises(ValueError, match="positive trace"):
        local_effective_dimension(A, 1000)
    for wrong in ({"gamma": 0.0, "samples": 1000}, {"samples": 10}, {"samples": 1}):
        with pytest.raises(ValueError, match=r"gamma|kappa"):
            local_effective_dimension(DiagonalOperator(np.ones(3)), **wrong)


def test_of_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    X, y = torch.randn(19, 5).double(), torch.randint(0, 3, (19,))
    f = Objective(model, nn.CrossEntropyLoss(), [(X[:8], y[:8]), (X[8:], y[8:])])
    G = GaussNewton(f).to_dense()
    values = torch.linalg.eigvalsh(G).clamp(min=0)
    found = trace_of(GaussNewton(f), "sqrt")
    assert abs(found.value - float(values.sqrt().sum())) <= found.stderr
    assert found.checked is not None
    damped = logdet(GaussNewton(f), damping=1e-3)
    assert damped.value == pytest.approx(float(torch.logdet(G + 1e-3 * torch.eye(f.size).double())), rel=1e-9)
    with pytest.raises(ValueError, match="a Ritz value of A of -"):
        logdet(Hessian(f), damping=1e-6)


def test_noise_enters_the_error():
    d = np.linspace(0.5, 2.0, N)
    A = NoisyOperator(matrix(d), 1e-2)
    for options in ({}, {"matvecs": 100}):
        found = trace_of(A, torch.log, generator=seeded_generator(0), **options)
        assert abs(found.value - np.log(d).sum()) <= 2 * found.stderr
        assert found.stderr > 1e-2 * np.log(d).sum()
    assert not trace_of(A, torch.log, rtol=1e-3, matvecs=100, generator=seeded_generator(0)).converged


def test_little_memory():
    d, column = SPECTRA["outliers"], N * 8
    roomy = trace_of(DiagonalOperator(d), torch.log1p, matvecs=120, generator=seeded_generator(0))
    for vectors in (60, 20, 8):
        A = DiagonalOperator(d, memory=vectors * column)
        found = trace_of(A, torch.log1p, matvecs=120, basis="device", generator=seeded_generator(0))
        assert abs(found.value - np.log1p(d).sum()) <= 3 * found.stderr
        assert found.footprint.vectors <= vectors * column
        assert found.matvecs <= 120
    assert roomy.footprint.vectors > 60 * column
    with pytest.raises(MemoryError, match="the trace of a function needs at least"):
        trace_of(DiagonalOperator(d, memory=3 * column), torch.log1p, matvecs=120, basis="device")


def test_a_large_budget_of_products_needs_no_more_memory():
    """Long processes that are not needed do not take the place of Q and of other vectors."""
    d = np.resize(SPECTRA["outliers"], 900)
    A = DiagonalOperator(d, memory=300 * 900 * 8)
    found = trace_of(A, torch.log1p, rtol=0.03, matvecs=5000, basis="device", generator=seeded_generator(0))
    assert found.converged
    assert found.matvecs < 500
    assert abs(found.value - np.log1p(d).sum()) <= 3 * found.stderr
    assert found.footprint.vectors > 64 * 900 * 8


def test_callbacks_and_seeds():
    calls = []
    A = operator("outliers")
    found = trace_of(A, torch.log1p, matvecs=100, callback=lambda *call: calls.append(call))
    assert [made for made, *_ in calls] == sorted(made for made, *_ in calls)
    assert calls[-1][:2] == (found.matvecs, 100)
    assert calls[-1][2].name == "trace of f"
    assert trace_of(A, torch.log1p, matvecs=100, generator=seeded_generator(found.seed)).value == found.value
    for until in (5, 40):
        part = trace_of(A, torch.log1p, matvecs=100, callback=lambda made, *_, until=until: made >= until)
        assert until <= part.matvecs < until + 4
        assert not part.converged
    whole = trace_of(A, torch.log1p, callback=lambda *_: True)
    assert (whole.matvecs, whole.converged, whole.stderr) == (64, False, math.inf)


@pytest.mark.parametrize("matvecs", [1, 2, 3, 5, 12, 39, 41])
def test_few_products(matvecs):
    true = of(torch.log1p, SPECTRA["range"])
    for seed in range(5):
        found = trace_of(operator("range"), torch.log1p, matvecs=matvecs, generator=seeded_generator(seed))
        assert abs(found.value - true) <= 4 * found.stderr
        assert found.matvecs <= matvecs


@pytest.mark.parametrize(
    ("f", "d", "words"),
    [
        ("sqrt", np.linspace(-0.1, 1, 50), r"sqrt needs a positive semi-definite matrix: a Ritz value of -0.1"),
        ("log", np.linspace(0, 1, 50), r"log needs a positive definite matrix: a Ritz value of -?\d"),
        ("inverse-sqrt", np.linspace(0, 1, 50), r"inverse-sqrt needs a positive definite matrix"),
        (torch.log, np.linspace(-0.1, 1, 50), r"f is nan at -0.1, a Ritz value of the matrix"),
        (lambda x: x.sum(), np.ones(5), r"f gives \(\) for \(5,\) eigenvalues"),
        ("cosine", np.ones(5), r"one of sqrt, log, inverse-sqrt, not 'cosine'"),
    ],
)
def test_where_f_is_not_defined_the_eigenvalue_is_named(f, d, words):
    with pytest.raises(ValueError, match=words):
        trace_of(DiagonalOperator(d), f)


def test_refusals():
    for wrong in ({"rtol": 0.0}, {"matvecs": 0}):
        with pytest.raises(ValueError, match=r"rtol|matvecs"):
            trace_of(operator("flat"), torch.log, **wrong)
    for matvecs in (30, 12):
        with pytest.raises(FloatingPointError, match="finite"):
            trace_of(BrokenOperator(torch.eye(30)), torch.exp, matvecs=matvecs)
