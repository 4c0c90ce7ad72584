"""What every Newton-type solver does: on quadratics, at saddle points, with its state, and with bad input."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from newton_cases import double_well, generator, network, quadratic
from torch import nn
from torch.nn import functional as F

from solvers import (
    RSRNM,
    CoordinateDescent,
    CubicNewton,
    DampedNewton,
    GradientNormalizedNewton,
    GradientRegularizedNewton,
    LazyCubicNewton,
    Ridge,
    SaddleFreeNewton,
    TrustRegionNewton,
    linear_model,
)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: CubicNewton(p, 1e-9, rule="fixed"),
        lambda p: CubicNewton(p, 1e-9, rule="fixed", krylov=True, tol=1e-12, generator=generator()),
        lambda p: LazyCubicNewton(p, 1e-9),
        lambda p: GradientRegularizedNewton(p, 1e-18, rule="fixed"),
        lambda p: GradientRegularizedNewton(p, 1e-18, rule="fixed", krylov=6),
        lambda p: DampedNewton(p, 1e-12),
        lambda p: DampedNewton(p, 1e-18, rule="root", krylov=6),
        lambda p: SaddleFreeNewton(p, 1e-9, rule="fixed"),
        lambda p: TrustRegionNewton(p, 100.0, forcing=1e-10),
        lambda p: GradientNormalizedNewton(p, 1e9),
    ],
)
def test_a_convex_quadratic_is_solved_in_one_step(make):
    problem = quadratic()
    solver = make(problem.parameters)
    solver.step(problem.closure)
    assert solver.last.accepted
    assert np.linalg.norm(problem.fgh.g(problem.flat())) < 1e-7
    assert solver.last.lowest == pytest.approx(0.5)
    assert solver.last.products == solver.last.size == 6


@pytest.mark.parametrize(
    "make",
    [
        lambda p: CubicNewton(p),
        lambda p: CubicNewton(p, 24.0, rule="fixed"),
        lambda p: CubicNewton(p, rule="ratio"),
        lambda p: CubicNewton(p, krylov=True, generator=generator()),
        lambda p: LazyCubicNewton(p, period=3),
        lambda p: SaddleFreeNewton(p),
        lambda p: SaddleFreeNewton(p, rank=1, generator=generator()),
        lambda p: SaddleFreeNewton(p, krylov=2),
        lambda p: TrustRegionNewton(p, 0.5),
    ],
)
def test_a_saddle_is_left(make):
    p, closure = double_well()
    solver = make([p])
    for _ in range(25):
        solver.step(closure)
    assert float(closure().detach()) == pytest.approx(-0.25, abs=1e-8)
    assert abs(p[0].item()) < 1e-4


@pytest.mark.parametrize(
    "make",
    [
        lambda p: DampedNewton(p, 10.0),
        lambda p: DampedNewton(p, 1.0, rule="root"),
        lambda p: GradientRegularizedNewton(p),
        lambda p: GradientRegularizedNewton(p, rule="line-search"),
        lambda p: GradientRegularizedNewton(p, rule="super-universal"),
        lambda p: GradientNormalizedNewton(p),
    ],
)
def test_a_convex_loss_falls_at_every_step_and_fast(make):
    X, y = torch.randn(40, 10, generator=generator()).double(), (torch.arange(40) % 2).double()
    model = linear_model(X, y, "logistic", Ridge(0.01), start=3 * torch.ones(10))
    solver = make([model.weight])
    for _ in range(25):
        solver.step(model)
        assert solver.last.new_loss <= solver.last.loss + 1e-14
        assert solver.last.lowest > 0
        assert solver.last.shift >= 0
    assert solver.last.gradient_norm < 1e-9


ALL = {
    "cubic": lambda p: CubicNewton(p, 1e-6),
    "cubic ratio": lambda p: CubicNewton(p, 1e-6, rule="ratio"),
    "cubic krylov": lambda p: CubicNewton(p, 1e-6, krylov=8, generator=generator()),
    "lazy": lambda p: LazyCubicNewton(p, 1e-6, period=3),
    "adaptive": lambda p: GradientRegularizedNewton(p, 1e-3),
    "line-search": lambda p: GradientRegularizedNewton(p, 1e-6, rule="line-search"),
    "super-universal": lambda p: GradientRegularizedNewton(p, 1e-6, rule="super-universal", alpha=0.7),
    "normalised": lambda p: GradientNormalizedNewton(p, 1e6),
    "damped": lambda p: DampedNewton(p, 100.0),
    "saddle-free": lambda p: SaddleFreeNewton(p, 1e-6, rule="ratio"),
    "saddle-free rank": lambda p: SaddleFreeNewton(p, 1e-3, rank=3, generator=generator()),
    "trust region": lambda p: TrustRegionNewton(p, 3.0),
    "coordinate": lambda p: CoordinateDescent(p, 5, L=1e-6, keep=True, generator=generator()),
    "rs-rnm": lambda p: RSRNM(p, 5, generator=generator()),
}


@pytest.mark.parametrize("name", list(ALL))
def test_a_saved_state_goes_on_bit_by_bit(name, tmp_path):
    problems = network(), network()
    solvers = [ALL[name](problem.parameters) for problem in problems]
    for _ in range(3):
        solvers[0].step(problems[0].closure)
    with torch.no_grad():
        for p, q in zip(problems[1].parameters, problems[0].parameters, strict=True):
            p.copy_(q)
    torch.save(solvers[0].state_dict(), tmp_path / "state.pt")
    solvers[1].load_state_dict(torch.load(tmp_path / "state.pt"))
    for _ in range(3):
        for problem, solver in zip(problems, solvers, strict=True):
            solver.step(problem.closure)
    np.testing.assert_array_equal(problems[0].flat(), problems[1].flat())
    for field in fields(solvers[0].last):
        one, two = (getattr(solver.last, field.name) for solver in solvers)
        assert one == two or (math.isnan(one) and math.isnan(two))
    with pytest.raises(ValueError, match="not the state of"):
        solvers[0].load_state_dict(torch.optim.SGD(problems[0].parameters, 0.1).state_dict())


@pytest.mark.parametrize("name", list(ALL))
def test_what_is_rejected_leaves_every_bit(name):
    """A loss that rises wherever one goes: nothing is accepted that is compared, and nothing moves."""
    problem = quadratic()
    before = problem.flat()

    def closure():
        loss = problem.closure()
        away = (torch.cat([p.reshape(-1) for p in problem.parameters]) - torch.tensor(before)).abs().sum()
        return loss + 1e6 * away.detach()

    solver = ALL[name](problem.parameters)
    solver.step(closure)
    if name in ("adaptive", "damped"):
        assert solver.last.accepted
        return
    if name == "super-universal":  # gradients decide
        return
    assert not solver.last.accepted
    assert solver.last.tries == (1 if "ratio" in name or name == "saddle-free" else solver.last.tries)
    np.testing.assert_array_equal(problem.flat(), before)


@pytest.mark.parametrize("name", list(ALL))
def test_a_loss_that_is_not_finite(name):
    problem = quadratic()
    before = problem.flat()
    calls = []

    def closure():
        moved = not np.array_equal(problem.flat(), before)
        calls.append(moved)
        return problem.closure() * (math.nan if moved else 1.0)

    solver = ALL[name](problem.parameters)
    with pytest.raises(ValueError, match="not finite at 40 trial points"):
        for _ in range(40):
            solver.step(closure)
            assert not solver.last.accepted
            assert math.isnan(solver.last.new_loss)
    assert sum(calls) == 40
    np.testing.assert_array_equal(problem.flat(), before)
    with pytest.raises(ValueError, match="the loss is nan before the step"):
        solver.step(lambda: problem.closure() * math.nan)


def test_single_precision():
    for make in (CubicNewton, GradientNormalizedNewton, lambda p: SaddleFreeNewton(p, krylov=5)):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        X, y = torch.randn(20, 3), torch.randint(0, 2, (20,))
        solver = make(model.parameters())
        for _ in range(12):
            loss = solver.step(lambda: F.cross_entropy(model(X), y))  # noqa: B023
        assert loss.dtype == torch.float64
        assert solver.last.gradient_norm < 1e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: CubicNewton(p, 0.0), "M=0.0"),
        (lambda p: CubicNewton(p, rule="armijo"), "rule='armijo'"),
        (lambda p: CubicNewton(p, krylov=-1), "krylov=-1"),
        (lambda p: CubicNewton(p, tol=0.0), "tol=0.0"),
        (lambda p: LazyCubicNewton(p, period=0), "period=0"),
        (lambda p: GradientRegularizedNewton(p, -1.0), "H=-1.0"),
        (lambda p: GradientRegularizedNewton(p, rule="newton"), "rule='newton'"),
        (lambda p: GradientRegularizedNewton(p, alpha=0.5), "alpha=0.5"),
        (lambda p: GradientRegularizedNewton(p, krylov=0), "krylov=0"),
        (lambda p: GradientNormalizedNewton(p, math.inf), "gamma=inf"),
        (lambda p: DampedNewton(p, q=5.0), "q=5.0"),
        (lambda p: DampedNewton(p, 0.0), "L=0.0"),
        (lambda p: SaddleFreeNewton(p, 0.0), "damping=0.0"),
        (lambda p: SaddleFreeNewton(p, rank=50), "50 eigenpairs do not fit into 17"),
        (lambda p: SaddleFreeNewton(p, rank=2, krylov=2), "rank or krylov"),
        (lambda p: CoordinateDescent(p, 50), "50 coordinates does not fit into 17"),
        (lambda p: RSRNM(p, 50), "50 dimensions does not fit into 17"),
        (lambda p: RSRNM(p, 5, c1=1.0), "c1=1.0"),
        (lambda p: CubicNewton([{"params": [p[0]]}, {"params": [p[1]], "M": 2.0}]), "they have one M, not 1 and 2"),
        (lambda p: CubicNewton([{"params": [p[0]]}, {"params": [p[1]], "lr": 0.1}]), "they have one lr, not 1 and 0.1"),
        (lambda p: CubicNewton([p[0], nn.Parameter(torch.ones(2, device="meta"))]), "one device, not on cpu, meta"),
        (lambda p: CubicNewton([nn.Parameter(torch.zeros(10_001))]), "dense Hessian of at most 10000"),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(ValueError, match=words):
        make(network().parameters)


@pytest.mark.parametrize("name", list(ALL))
def test_a_closure_that_calls_backward(name):
    problem = quadratic()

    def closure():
        loss = problem.closure()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="called backward"):
        ALL[name](problem.parameters).step(closure)
