"""Rules of acceptance where differences of losses are rounding."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from newton_cases import generator, logistic, network, quadratic

from solvers import (
    RSRNM,
    SSCN,
    CubicNewton,
    DampedNewton,
    GradientNormalizedNewton,
    GradientRegularizedNewton,
    SaddleFreeNewton,
)
from solvers.second_order.acceptance import Doubling, Ratio
from solvers.second_order.trial_point import Move


@pytest.mark.parametrize(
    ("rule", "fall", "accepted", "factor"),
    [
        (Doubling(), 1.001, True, 0.5),
        (Doubling(), 0.999, False, 2.0),
        (Ratio(), 0.91, True, 0.5),
        (Ratio(), 0.89, True, 1.0),
        (Ratio(), 0.051, True, 1.0),
        (Ratio(), 0.049, False, 1.5),
        (Ratio(), -0.1, False, 1.5),
    ],
)
def test_the_rules_at_their_bounds(rule, fall, accepted, factor):
    """`fall`: of the loss, as a share of what was promised."""
    promise = 0.5
    move = Move(torch.zeros(1), promise, lowest=1.0, size=1)
    point = SimpleNamespace(loss=3.0)
    assert rule.judge(point, move, 3.0 - fall * promise, 8.0) == (accepted, 8.0 * factor)
    if factor < 1:
        assert rule.judge(point, move, 3.0 - fall * promise, 1e-10) == (accepted, 1e-10)


def test_where_losses_say_nothing_the_gradient_must_not_grow():
    """Newton's step from x for sqrt(1 + x^2) is to -x^3: away from the minimum where |x| > 1, and f is all rounding."""
    for start, end in ((0.5, -0.125), (1.5, 1.5)):
        x = torch.tensor([start], dtype=torch.float64, requires_grad=True)
        solver = CubicNewton([x], 1e-22)
        solver.step(lambda x=x: 1 + 1e-15 * (1 + x.square()).sqrt().sum())
        assert solver.last.stalled
        assert solver.last.accepted == (start != end)
        assert float(x.detach()) == pytest.approx(end, rel=1e-3)


def test_rounding_is_left_to_the_gradient():
    for make in (CubicNewton, SaddleFreeNewton, GradientNormalizedNewton):
        problem = logistic()
        solver = make(problem.parameters)
        for _ in range(25):
            solver.step(problem.closure)
        assert solver.last.stalled
        assert np.linalg.norm(problem.fgh(problem.flat())[1]) < 1e-9
        constant = solver.last.M
        solver.step(problem.closure)
        assert constant == solver.last.M


PROMISES = {  # a solver, and what its model adds to g.h + h.H h / 2, by (H, h, the solver)
    "cubic": (lambda p: CubicNewton(p, 3.0), lambda H, h, M: M / 6 * np.linalg.norm(h) ** 3),
    "krylov": (
        lambda p: CubicNewton(p, 3.0, krylov=20, tol=1e-12, generator=generator()),
        lambda H, h, M: M / 6 * np.linalg.norm(h) ** 3,
    ),
    "sscn": (lambda p: SSCN(p, 17, M=3.0), lambda H, h, M: M / 6 * np.linalg.norm(h) ** 3),
    "regularised": (lambda p: GradientRegularizedNewton(p, 2.0, rule="fixed"), lambda H, h, shift: shift / 2 * h @ h),
    "saddle-free": (
        lambda p: SaddleFreeNewton(p, 0.5),
        lambda H, h, shift: shift / 2 * h @ h + h @ (absolute(H) - H) @ h / 2,
    ),
    "saddle-free rank": (
        lambda p: SaddleFreeNewton(p, 0.5, rank=4, tol=1e-12, generator=generator()),
        lambda H, h, shift: shift / 2 * h @ h + h @ (absolute(H, 4) - H) @ h / 2,
    ),
    "damped": (lambda p: DampedNewton(p, 2.0), lambda H, h, shift: shift / 2 * h @ h),
}


def absolute(H, rank=None):
    """|H|; beyond the `rank` largest |w| the smallest of these stands for all."""
    w, U = np.linalg.eigh(H)
    sizes = abs(w) if rank is None else np.maximum(abs(w), np.sort(abs(w))[-rank])
    return (U * sizes) @ U.T


@pytest.mark.parametrize("name", list(PROMISES))
@pytest.mark.parametrize("lr", [1.0, 0.3, 1.3])
def test_the_promise_is_the_models_at_the_scaled_step(name, lr):
    make, added = PROMISES[name]
    problem = network()
    solver = make(problem.parameters)
    solver.param_groups[0]["lr"] = lr
    for _ in range(3):
        before = problem.flat()
        f, g, H = problem.fgh(before)
        solver.step(problem.closure)
        last, h = solver.last, problem.flat() - before
        if not last.accepted:
            continue
        weight = last.used if name in ("cubic", "krylov", "sscn") else last.shift
        model = g @ h + 0.5 * h @ H @ h + added(H, h, weight)
        assert last.decrease == pytest.approx(-model, rel=1e-6, abs=1e-12)
        assert last.length == pytest.approx(np.linalg.norm(h), rel=1e-9)
        assert last.ratio == pytest.approx((f - problem.fgh.f(problem.flat())) / -model, rel=1e-5)
    full, scaled = network(), network()
    one, other = make(full.parameters), make(scaled.parameters)
    other.param_groups[0]["lr"] = lr
    start = full.flat()
    one.step(full.closure)
    other.step(scaled.closure)
    if one.last.used == other.last.used:
        np.testing.assert_allclose(scaled.flat() - start, lr * (full.flat() - start), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("lr", [1.0, 0.5])
def test_the_length_is_that_of_the_parameters_step(lr):
    """Of the parameters, not of the coordinates in a subspace."""
    problem = network()
    solver = RSRNM(problem.parameters, 8, generator=generator())
    solver.param_groups[0]["lr"] = lr
    before = problem.flat()
    solver.step(problem.closure)
    assert solver.last.accepted
    assert solver.last.length == pytest.approx(np.linalg.norm(problem.flat() - before), rel=1e-9)


@pytest.mark.parametrize("lr", [0.2, 0.7, 1.5, 3.0])
@pytest.mark.parametrize(
    "make",
    [
        CubicNewton,
        lambda p: CubicNewton(p, rule="ratio"),
        SaddleFreeNewton,
        lambda p: GradientRegularizedNewton(p, rule="line-search"),
        GradientNormalizedNewton,
        lambda p: SSCN(p, 8, generator=generator()),
        lambda p: RSRNM(p, 8, generator=generator()),
    ],
)
def test_no_lr_lets_a_rule_accept_a_loss_that_rises(make, lr):
    problem = network()
    solver = make(problem.parameters)
    solver.param_groups[0]["lr"] = lr
    first = float(problem.closure().detach())
    for _ in range(12):
        solver.step(problem.closure)
        assert not solver.last.accepted or solver.last.new_loss <= solver.last.loss + 1e-13
    assert solver.last.loss < first or lr > 1


@pytest.mark.parametrize(
    "make",
    [
        CubicNewton,
        SaddleFreeNewton,
        GradientRegularizedNewton,
        lambda p: GradientRegularizedNewton(p, rule="line-search"),
        lambda p: GradientRegularizedNewton(p, rule="super-universal"),
        GradientNormalizedNewton,
    ],
)
def test_half_steps_arrive_at_a_linear_rate(make):
    """With lr = 1/2 the gradient of a convex loss halves at each step, once the model is good."""
    problem = quadratic()
    solver, sizes = make(problem.parameters), []
    solver.param_groups[0]["lr"] = 0.5
    for _ in range(25):
        solver.step(problem.closure)
        sizes.append(solver.last.gradient_norm)
        assert solver.last.accepted
    assert sizes[-1] / sizes[-6] == pytest.approx(0.5**5, rel=0.1)
