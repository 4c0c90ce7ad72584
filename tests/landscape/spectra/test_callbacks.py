"""What algorithms tell on their way: each estimate is within its stated error, and the last one is the result's."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from spectra_cases import DiagonalOperator, matrix, seeded_generator

from landscape.operators.matrix import MatrixOperator
from landscape.spectra import DENSE_LIMIT, RunningEstimate, condition_number, density, diagonal, eigsh, trace

D = np.concatenate([[9.0, -7.0, 5.0], np.linspace(-1.0, 2.0, 57)])
A = MatrixOperator(matrix(D))


def told(algorithm, *words, **options):
    """All that a callback is told, and the result."""
    calls = []
    found = algorithm(*words, **options, generator=seeded_generator(0), callback=lambda *call: calls.append(call))
    made = [call[0] for call in calls]
    assert made == sorted(made)
    assert made[-1] == found.matvecs
    assert all(isinstance(estimate, RunningEstimate) for _, _, estimate in calls)
    assert len({estimate.name for _, _, estimate in calls}) == 1
    return [estimate for _, _, estimate in calls], found


@pytest.mark.parametrize(("which", "name"), [("LA", "lambda_1"), ("SA", "lambda_min"), ("LM", "lambda_1")])
def test_eigsh_has_an_eigenvalue_within_the_error(which, name):
    calls, found = told(eigsh, A, 3, which=which)
    assert calls[0].name == name
    assert all(np.abs(D - float(call)).min() <= call.error for call in calls)
    assert float(calls[-1]) == pytest.approx(float(found.values[0]))
    assert calls[0].error > 100 * calls[-1].error
    assert calls[-1].error == pytest.approx(float(found.residuals[0]), rel=1e-6)


def test_density_has_an_eigenvalue_within_the_error():
    calls, found = told(density, A, probes=3, steps=30)
    sizes = np.abs(D)
    assert all(np.abs(sizes - float(call)).min() <= call.error for call in calls)
    assert float(calls[-1]) == pytest.approx(float(found.nodes.abs().max()))
    assert calls[0].error > 0.1
    assert calls[-1].error < 1e-6


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_trace_tells_its_standard_error(method):
    calls, found = told(trace, A, method=method, rtol=0.15, matvecs=200)
    assert (calls[-1].name, float(calls[-1]), calls[-1].error) == ("trace", found.value, found.stderr)
    assert all(abs(float(call) - D.sum()) <= 4 * call.error for call in calls)


def test_an_exact_trace_is_unknown_until_it_is_whole():
    for algorithm in (trace, diagonal):
        big = MatrixOperator(matrix(np.linspace(-1.0, 2.0, 150)))
        calls, _ = told(algorithm, big, matvecs=150)
        assert [math.isinf(call.error) for call in calls] == [True, True, False]
        assert abs(float(calls[-1]) - 75.0) <= calls[-1].error < 1e-9


def test_diagonal_tells_the_trace():
    calls, found = told(diagonal, A, matvecs=50)
    assert float(calls[-1]) == pytest.approx(float(found.value.sum()))
    assert abs(float(calls[-1]) - D.sum()) <= 3 * calls[-1].error


def test_condition_number_counts_the_columns_of_a_matrix():
    calls = []
    found = condition_number(MatrixOperator(matrix(D)), callback=lambda *call: calls.append(call[:2]))
    assert calls == [(60, 60)]
    assert found.kappa == pytest.approx(9.0 / np.abs(D).min(), rel=1e-8)
    large = MatrixOperator(matrix(np.linspace(1.0, 2.0, 200)))
    seen = []
    stopped = condition_number(large, callback=lambda made, planned, _: bool(seen.append((made, planned))) or True)
    assert seen == [(64, 200)]
    assert math.isnan(stopped.kappa)
    assert not stopped.converged
    assert "unknown: stopped after 64 products" in str(stopped)
    assert condition_number(large, callback=lambda made, planned, _: made == planned).converged


def test_condition_number_beyond_the_dense_limit():
    n = DENSE_LIMIT + 100
    d = np.concatenate([np.logspace(0, -2, 30), np.zeros(n - 30)])
    bound, operator = [], DiagonalOperator(d)
    operator.positive_semidefinite = True
    whole = condition_number(operator, callback=lambda *call: bound.append(call))
    assert (bound[0][0], bound[-1][0]) == (1, whole.matvecs)
    assert all(np.abs(d - float(call[2])).min() <= call[2].error + 1e-12 for call in bound)
    few = condition_number(operator, callback=lambda made, *_: made == 10)
    assert few.matvecs == 10
    assert few.kappa <= whole.kappa <= 100 * (1 + 1e-6)
    ranked = []
    condition_number(DiagonalOperator(d), rank=3, callback=lambda *call: ranked.append(call[2].name))
    assert set(ranked) == {"lambda_1"}
    early = condition_number(DiagonalOperator(d), rank=3, callback=lambda *_: True)
    assert math.isnan(early.kappa)
    assert not early.converged


def test_nothing_is_estimated_for_nobody(monkeypatch):
    def fail(*_):
        raise AssertionError("an estimate that nobody asked for")

    monkeypatch.setattr(RunningEstimate, "__new__", fail)
    eigsh(A, 2)
    trace(A, matvecs=20)
    diagonal(A, matvecs=20)
    condition_number(A)


def test_a_running_estimate_is_a_float():
    found = RunningEstimate(2.0, 0.5, "trace")
    assert (found * 2, f"{found:.1f}", str(found)) == (4.0, "2.0", "trace = 2 +- 0.5")
    again = copy.deepcopy(found)
    assert (float(again), again.error, again.name, again.unit) == (2.0, 0.5, "trace", "products")
    assert torch.tensor(found).item() == 2.0
