"""Any network of a grammar, with any loss on ragged batches: every number is right, or refused by name."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_networks import DOUBLE, KINKED, Problem, problems

from landscape import GaussNewton, Hessian, Objective
from landscape.spectra import eigsh

QUICK = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=1000)


def objective(problem: Problem, **options) -> Objective:
    return Objective(problem.model, problem.loss, problem.batches, **problem.options, **options)


def close(found: torch.Tensor, expected: torch.Tensor, tol: float) -> bool:
    scale = max(float(expected.norm()), 1e-6)
    return float((found.double() - expected).norm()) <= tol * scale


def right(problem: Problem) -> None:
    """Everything that is measured on f against f written a second time."""
    before = {name: t.clone() for name, t in problem.model.state_dict().items()}
    f = objective(problem)
    theta = problem.theta()
    assert f.size == len(theta)
    assert f.value() == pytest.approx(float(problem.value(theta)), rel=1e-10)
    assert close(f.gradient(), problem.gradient(theta), 1e-9)
    A, H = Hessian(f), problem.hessian()
    V = torch.randn(len(theta), 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    assert close(A @ V, H @ V, 1e-8)
    v = problem.direction()
    if not any(isinstance(m, KINKED) or "Max" in type(m).__name__ for m in problem.model.modules()):
        coarse, fine = problem.difference(v, 1e-5), problem.difference(v, 1e-6)
        if close(coarse, fine, 1e-5):  # a layer norm of a constant is too stiff for them
            assert close(A @ v, fine, 1e-4)
    top = eigsh(A, k=1, which="LM", tol=1e-4)
    largest = torch.linalg.eigvalsh(H).abs().max()
    assert abs(float(top.values[0].abs() - largest)) <= float(top.residuals[0]) + 1e-9
    G = GaussNewton(f)
    assert float((V.T @ (G @ V) - (G @ V).T @ V).norm()) <= 1e-9 * (1 + float((G @ V).norm()))
    for name, t in problem.model.state_dict().items():
        assert torch.equal(t, before[name]), name


def noticed(problem: Problem) -> None:
    """A module whose derivative is none is named, unless nothing of it reaches the product."""
    H, v = problem.hessian(), problem.direction()
    far = float((H @ v - problem.difference(v)).norm())
    assume(far > 0.02 * float((H @ v).norm()) > 1e-6)
    with pytest.raises(RuntimeError, match=f"[\"'`]{problem.wrong}[\"'`]"):
        Hessian(objective(problem)) @ v


@QUICK
@given(problems())
def test_any_network(problem):
    right(problem)


@settings(QUICK, max_examples=20)
@given(problems(wrong=True))
def test_a_false_derivative_is_found(problem):
    noticed(problem)


@settings(QUICK, max_examples=20)
@given(problems(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_lower_precision_stays_within_what_it_says(problem, dtype):
    true = torch.linalg.eigvalsh(problem.hessian())
    assume(float(true.abs().max()) > 1e-3)
    A = Hessian(objective(problem, dtype=dtype))
    assert A.dtype == torch.float32
    assert A.noise > 0 or dtype == torch.float32
    found = eigsh(A, k=1, which="LM", tol=1e-4)
    assert abs(float(found.values[0].abs() - true.abs().max())) <= float(found.residuals[0])


@pytest.mark.slow
@LONG
@given(problems())
def test_any_of_a_thousand_networks(problem):
    right(problem)


@pytest.mark.slow
@settings(LONG, max_examples=200)
@given(problems(wrong=True))
def test_any_of_many_false_derivatives_is_found(problem):
    noticed(problem)
