"""MoMo and MoMo-Adam: against references, their model minimised numerically, and as optimizers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rule_cases import (
    check_against_reference,
    check_bfloat16,
    check_grad_scaler,
    check_loss_rule,
    check_missing_gradients,
    check_resumes,
    spread,
)
from scipy.optimize import minimize_scalar

from solvers.first_order.momo import MoMo, MoMoAdam


def model(thetas, gs, loss, state, beta, corrected):
    """f', q, d and rho after a step's loss and gradients; all are kept in `state`."""
    inner = sum(float((g * t).sum()) for g, t in zip(gs, thetas, strict=True))
    if "f" not in state:
        zero = 0.0 if corrected else 1.0
        state |= {"k": 0, "f": zero * loss, "q": zero * inner, "d": [zero * g for g in gs]}
    state["k"] += 1
    state["f"] = beta * state["f"] + (1 - beta) * loss
    state["q"] = beta * state["q"] + (1 - beta) * inner
    state["d"] = [beta * d + (1 - beta) * g for d, g in zip(state["d"], gs, strict=True)]
    return 1 - beta ** state["k"] if corrected else 1.0


def step(thetas, state, each, rho, D):
    """The closed form for one group, written for several in the metric of lr and decay."""
    lrs, decays = [s["lr"] for s in each], [s["weight_decay"] for s in each]
    height = state["f"] - rho * each[0]["lower_bound"] - state["q"]
    square = 0.0
    for d, t, lr, decay, scale in zip(state["d"], thetas, lrs, decays, D, strict=True):
        height += float((d * t).sum()) / (1 + lr * decay)
        square += lr * float((d * d / scale).sum()) / (1 + lr * decay)
    s = min(1.0, max(0.0, rho * height) / square)
    return [
        (t - lr * s / rho * d / scale) / (1 + lr * decay)
        for t, d, lr, decay, scale in zip(thetas, state["d"], lrs, decays, D, strict=True)
    ]


def momo_reference(thetas, gs, loss, state, each):
    rho = model(thetas, gs, loss, state, each[0]["beta"], each[0]["bias_correction"])
    return step(thetas, state, each, rho, [torch.ones_like(t) for t in thetas])


def momo_adam_reference(thetas, gs, loss, state, each):
    rho = model(thetas, gs, loss, state, each[0]["betas"][0], True)
    beta = each[0]["betas"][1]
    state["v"] = [
        beta * v + (1 - beta) * g * g
        for v, g in zip(state.get("v", [torch.zeros_like(g) for g in gs]), gs, strict=True)
    ]
    return step(thetas, state, each, rho, [each[0]["eps"] + (v / (1 - beta ** state["k"])).sqrt() for v in state["v"]])


plain = {"beta": 0.9, "lower_bound": 0.0, "weight_decay": 0.0, "bias_correction": False}
adam = {"betas": (0.9, 0.99), "eps": 1e-8, "lower_bound": 0.0, "weight_decay": 0.0}
CASES = {
    "momo": (MoMo, momo_reference, {"lr": 0.9, **plain}),
    "momo-decay": (MoMo, momo_reference, {"lr": 0.9, **plain, "lower_bound": 0.02, "weight_decay": 0.1}),
    "momo-corrected": (MoMo, momo_reference, {"lr": 0.5, **plain, "weight_decay": 0.1, "bias_correction": True}),
    "momoadam": (MoMoAdam, momo_adam_reference, {"lr": 0.01, **adam}),
    "momoadam-decay": (MoMoAdam, momo_adam_reference, {"lr": 0.02, **adam, "weight_decay": 0.2}),
    "momoadam-long": (MoMoAdam, momo_adam_reference, {"lr": 0.2, **adam, "eps": 1e-3}),
}


@pytest.mark.parametrize(("name", "problem"), spread(CASES))
def test_the_update_is_the_documented_one(name, problem):
    solver, reference, settings = CASES[name]
    check_against_reference(solver, reference, settings, problem)


@pytest.mark.parametrize("name", list(CASES))
def test_as_an_optimizer(name):
    solver, _, settings = CASES[name]
    check_resumes(solver, settings)
    check_bfloat16(solver, settings)
    check_missing_gradients(solver, settings)
    check_loss_rule(solver, settings)
    check_grad_scaler(solver, settings)


def minimiser(x, d, D, lr, decay, height, rho):
    """argmin of max{height + <d, y>, 0} / rho + sum (y - x)^2 D / (2 lr) + decay y^2 D / 2, by its dual in one number.

    max{u, 0} / rho is the largest s u / rho over 0 <= s <= 1; for a fixed s the minimum over y is a weighted mean.
    """

    def best(s):
        return (x / lr - s * d / (rho * D)) / (1 / lr + decay)

    def primal(y):
        return max(height + d @ y, 0.0) / rho + 0.5 * (D * ((y - x) ** 2 / lr + decay * y**2)).sum()

    def dual(s):
        y = best(s)
        return s * (height + d @ y) / rho + 0.5 * (D * ((y - x) ** 2 / lr + decay * y**2)).sum()

    found = minimize_scalar(lambda s: -dual(s), bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12})
    s = min((0.0, float(found.x), 1.0), key=lambda s: -dual(s))
    y = best(s)
    assert primal(y) == pytest.approx(dual(s), rel=1e-6, abs=1e-9)  # no duality gap: y is the minimiser
    return y, primal


@pytest.mark.parametrize("kind", ["cut", "whole", "flat"])
@pytest.mark.parametrize("solver", [MoMo, MoMoAdam])
def test_a_step_minimises_the_model(solver, kind):
    """Two groups of different lr and decay; where the lower bound cuts, where it does not, and where it is above."""
    generator = torch.Generator().manual_seed(3)
    p, q = (torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    lr, decay = {"cut": (4.0, 9.0), "whole": (1e-3, 2e-3), "flat": (0.5, 0.7)}[kind], (0.05, 0.3)
    bound = {"cut": 0.0, "whole": 0.0, "flat": 50.0}[kind]
    groups = [{"params": [t], "lr": lr[i], "weight_decay": decay[i]} for i, t in enumerate((p, q))]
    optimizer = solver(groups, lower_bound=bound)

    def loss():
        return (p.exp().sum() + (q - 2).square().sum() + (p * q).sum().square()) / 5 + 1

    for _ in range(4):
        x = torch.cat([p, q]).detach().numpy().copy()
        loss_here = float(optimizer.step(loss))
    after = torch.cat([p, q]).detach().numpy()
    d = torch.cat([optimizer.state[t]["mean"] for t in (p, q)]).numpy()
    height = optimizer.param_groups[0]["means"][1] - sum(optimizer.state[t]["inner"] for t in (p, q))
    rho, D = 1.0, np.ones(6)
    if solver is MoMoAdam:
        rho = 1 - 0.9**4
        D = 1e-8 + torch.cat([(optimizer.state[t]["square"] / (1 - 0.999**4)).sqrt() for t in (p, q)]).numpy()
    y, primal = minimiser(x, d, D, np.repeat(lr, 3), np.repeat(decay, 3), height - rho * bound, rho)
    share = optimizer.last.shrink
    assert {"cut": 0 < share < 1, "whole": share == 1, "flat": share == 0}[kind]
    np.testing.assert_allclose(after, y, rtol=1e-6, atol=1e-7)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-3):
        assert all(primal(after) <= primal(after + size * rng.normal(size=6)) for _ in range(100))
    assert optimizer.last.loss == loss_here
    metric = np.repeat(lr, 3) / (1 + np.repeat(lr, 3) * np.repeat(decay, 3)) / D
    assert optimizer.last.norm == pytest.approx(np.sqrt((metric * d * d).sum()), rel=1e-9)


def test_without_momentum_it_is_sps_max():
    """beta = 0: min{lr, (f - lower bound) / ||g||^2}."""
    for lr, expected in ((10.0, 4.5 / 16), (0.1, 0.1)):
        x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        MoMo([x], lr, beta=0.0, lower_bound=0.5).step(lambda x=x: x.square().sum() + 1)
        assert float(x.detach()) == pytest.approx(2 - 4 * expected, rel=1e-14)


def test_far_above_the_lower_bound_it_is_momentum_or_adam():
    """Where the model is not cut, steps are those of a constant lr: SGD with dampening, torch's Adam."""
    for solver, other in (
        (MoMo, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, dampening=0.9)),
        (MoMoAdam, lambda p: torch.optim.Adam(p, 0.01)),
    ):
        x, y = (torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
        one, two = solver([x], 0.01, lower_bound=-1e9), other([y])
        for _ in range(50):
            one.step(lambda x=x: x.square().sum())
            y.grad = 2 * y.detach()
            two.step()
        torch.testing.assert_close(x.detach(), y.detach(), rtol=1e-7 if solver is MoMoAdam else 1e-12, atol=1e-12)


def test_schedulers_act_at_once():
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = MoMo([x], 1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    lengths = []
    for _ in range(3):
        before = float(x.detach())
        optimizer.step(lambda: x.sum())
        lengths.append(before - float(x.detach()))
        schedule.step()
    np.testing.assert_allclose(lengths, [1e-3, 1e-4, 1e-5], rtol=1e-9)


@pytest.mark.parametrize(
    ("solver", "settings", "name"),
    [
        (MoMo, {"lr": -1.0}, "lr"),
        (MoMo, {"beta": 1.0}, "beta"),
        (MoMo, {"lower_bound": -math.inf}, "lower_bound"),
        (MoMo, {"weight_decay": -0.1}, "weight_decay"),
        (MoMoAdam, {"betas": (0.9, 1.0)}, "betas"),
        (MoMoAdam, {"eps": 0.0}, "eps"),
        (MoMoAdam, {"lr": math.nan}, "lr"),
    ],
)
def test_bad_settings(solver, settings, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        solver([torch.zeros(1, requires_grad=True)], **settings)
