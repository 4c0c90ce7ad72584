"""SPS_max, DecSPS and AdaGrad-norm: against references, as optimizers, and within the theorem's bound."""

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

from landscape.regularity import ProblemConstants, alpha_beta, dec_sps, examples, sps_max
from solvers.first_order.adagrad_norm import AdaGradNorm
from solvers.first_order.sps import DecSPS, SPSMax


def metric(gs, each):
    """Sum of lr ||g||^2."""
    return sum(s["lr"] * float((g * g).sum()) for g, s in zip(gs, each, strict=True))


def moved(thetas, gs, each, share):
    return [t - s["lr"] * share * g for t, g, s in zip(thetas, gs, each, strict=True)]


def sps_reference(thetas, gs, loss, state, each):
    s = min((loss - each[0]["lower_bound"]) / (each[0]["c"] * metric(gs, each)), 1.0)
    return moved(thetas, gs, each, s)


def dec_sps_reference(thetas, gs, loss, state, each):
    """The published recursion, for the step as a share of lr."""
    k, c0 = state.setdefault("k", 0), each[0]["c0"]
    before = c0 * math.sqrt(k) if k else c0
    c = c0 * math.sqrt(k + 1)
    state["s"] = min((loss - each[0]["lower_bound"]) / metric(gs, each), before * state.get("s", 1.0)) / c
    state["k"] += 1
    return moved(thetas, gs, each, state["s"])


def adagrad_reference(thetas, gs, loss, state, each):
    square = sum(float((g * g).sum()) for g in gs)
    state["c"] = max(state.get("c", 0.0), square)
    state["b"] = state.get("b", each[0]["b0"] ** 2) + (square if each[0]["variant"] == "sum" else state["c"])
    return moved(thetas, gs, each, 1 / math.sqrt(state["b"]))


CASES = {
    "sps": (SPSMax, sps_reference, {"lr": 0.9, "c": 1.0, "lower_bound": 0.0}),
    "sps-half": (SPSMax, sps_reference, {"lr": 0.9, "c": 0.5, "lower_bound": 0.02}),
    "decsps": (DecSPS, dec_sps_reference, {"lr": 0.9, "c0": 1.0, "lower_bound": 0.0}),
    "decsps-2": (DecSPS, dec_sps_reference, {"lr": 1.5, "c0": 2.0, "lower_bound": 0.02}),
    "adagrad": (AdaGradNorm, adagrad_reference, {"lr": 0.5, "b0": 0.1, "variant": "sum"}),
    "adagrad-max": (AdaGradNorm, adagrad_reference, {"lr": 2.0, "b0": 1.0, "variant": "max"}),
}
LOSS_RULES = [name for name in CASES if "sps" in name]


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
    check_grad_scaler(solver, settings)


@pytest.mark.parametrize("name", LOSS_RULES)
def test_what_a_rule_refuses(name):
    solver, _, settings = CASES[name]
    check_loss_rule(solver, settings)


def test_one_lr_gives_the_published_step():
    """min{(f - f*) / (c ||g||^2), lr}: gradient 4 at x = 2 of x^2 + 1."""
    for lr, c, infimum, expected in (
        (10.0, 1.0, 0.0, 5 / 16),
        (10.0, 1.0, 1.0, 4 / 16),
        (0.1, 0.5, 1.0, 0.1),
        (10.0, 2.0, 1.0, 2 / 16),
    ):
        x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        optimizer = SPSMax([x], lr, c=c, lower_bound=infimum)
        optimizer.step(lambda x=x: x.square().sum() + 1)
        assert float(x.detach()) == pytest.approx(2 - 4 * expected, rel=1e-14)
        assert optimizer.last.shrink == pytest.approx(expected / lr)
        assert optimizer.last.norm == pytest.approx(math.sqrt(lr) * 4)


def test_polyaks_step_is_a_projection_in_the_metric():
    """With c = 1 and a large lr the step solves min sum ||y - x||^2 / lr such that f + <g, y - x> = f*."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    start = torch.cat([x, y]).detach()
    optimizer = SPSMax([{"params": [x], "lr": 50.0}, {"params": [y], "lr": 200.0}], 1.0, lower_bound=0.3)
    value = optimizer.step(lambda: (x.exp().sum() + y.square().sum()) + 1)
    g = torch.cat([start[:3].exp(), 2 * start[3:]])
    weights = torch.tensor([1 / 50.0] * 3 + [1 / 200.0] * 3, dtype=torch.float64)
    # the system of the Lagrangian: 2 w (y - x) + mu g = 0, <g, y - x> = f* - f
    system = torch.zeros(7, 7, dtype=torch.float64)
    system[:6, :6], system[:6, 6], system[6, :6] = torch.diag(2 * weights), g, g
    right = torch.cat([torch.zeros(6, dtype=torch.float64), torch.tensor([0.3 - float(value)], dtype=torch.float64)])
    expected = start + torch.linalg.solve(system, right)[:6]
    torch.testing.assert_close(torch.cat([x, y]).detach(), expected, rtol=1e-12, atol=1e-13)


def test_at_the_minimum_nothing_moves():
    x = torch.zeros(2, requires_grad=True)
    for optimizer in (SPSMax([x], 1.0), DecSPS([x], 1.0), AdaGradNorm([x], 1.0)):
        for _ in range(2):
            optimizer.step(lambda: x.square().sum())
        assert torch.equal(x.detach(), torch.zeros(2))


def test_a_loss_below_the_bound_is_said_and_roundings_are_not():
    x = torch.ones(1, requires_grad=True)
    for solver in (SPSMax, DecSPS):
        optimizer = solver([x], 0.1, lower_bound=1.0)
        with pytest.raises(ValueError, match=r"lower_bound=1 and the loss is 0.5: pass a smaller lower_bound="):
            optimizer.step(lambda: 0.5 * x.sum())
        optimizer.step(lambda: (1 - 1e-7) * x.sum())
        assert torch.equal(x.detach(), torch.ones(1))


def test_schedulers_act_at_once():
    for solver in (SPSMax, DecSPS):
        x = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = solver([x], 1e-3)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
        lengths = []
        for k in range(3):
            before = float(x.detach())
            optimizer.step(lambda x=x: x.sum())
            lengths.append((before - float(x.detach())) * (math.sqrt(k + 1) if solver is DecSPS else 1))
            schedule.step()
        np.testing.assert_allclose(lengths, [1e-3, 1e-4, 1e-5], rtol=1e-9)


def test_adagrads_sums():
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    for variant, expected in (("sum", 1 + 9 + 16 + 9), ("max", 1 + 9 + 16 + 16)):
        optimizer = AdaGradNorm([x], 0.1, b0=1.0, variant=variant)
        assert optimizer.scale == 1.0
        for g in (3.0, 4.0, 3.0):
            optimizer.step(lambda g=g: g * x.sum())
        assert optimizer.scale == pytest.approx(math.sqrt(expected))
    x.grad = torch.tensor([math.nan], dtype=torch.float64)
    with pytest.raises(ValueError, match="the norm of the gradient is nan: nothing was moved"):
        optimizer.step()


@pytest.mark.parametrize(
    ("solver", "settings", "name"),
    [
        (SPSMax, {"lr": -1.0}, "lr"),
        (SPSMax, {"lr": 1.0, "c": 0.0}, "c"),
        (SPSMax, {"lr": 1.0, "lower_bound": math.inf}, "lower_bound"),
        (DecSPS, {"lr": 1.0, "c0": -1.0}, "c0"),
        (DecSPS, {"lr": math.nan}, "lr"),
        (AdaGradNorm, {"lr": 1.0, "b0": 0.0}, "b0"),
        (AdaGradNorm, {"lr": 1.0, "variant": "mean"}, "variant"),
    ],
)
def test_bad_settings(solver, settings, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        solver([torch.zeros(1, requires_grad=True)], **settings)


# -- the theorems of arXiv 2410.12455 ---------------------------------------------------------------------------------


class Line:
    """The two functions of `landscape.regularity.examples` in torch, sampled; 100 runs are 100 solvers."""

    def __init__(self):
        self.toy = examples.two_functions()
        beta = alpha_beta(self.toy.trajectory(np.linspace(-20, 20, 40_001)[:, None]), 0.5).beta * (1 + 1e-6)
        self.constants = ProblemConstants(beta + 0.5, beta, self.toy.smoothness, self.toy.sigma2)

    def measured(self, make, steps, runs=12, start=4.0):
        """min over k of the mean over runs of f(x_k) - f*, and the farthest |x|."""
        rng, visited = np.random.default_rng(0), np.empty((runs, steps))
        for run in range(runs):
            x = torch.tensor([start], dtype=torch.float64, requires_grad=True)
            optimizer = make([x], float(self.toy.infimum[0]))
            for k, sign in enumerate(rng.choice([-1.0, 1.0], size=steps)):
                visited[run, k] = float(x.detach())
                optimizer.step(lambda x=x, sign=sign: ((x - sign).square() / 2 + (1 - torch.cos(2 * x)) / 2).sum())
        losses = self.toy.values(visited.reshape(-1, 1)).mean(axis=0) - self.toy.minimum
        return float(losses.reshape(runs, steps).mean(axis=0).min()), float(np.abs(visited).max())


def test_the_bounds_of_theorems_2_and_5_hold():
    """Bound / measured: SPS_max 680 and 880 with caps 0.1 and 1, DecSPS 31 and 260 (after 60 steps from x = 4)."""
    line = Line()
    for cap in (0.1, 1.0):
        found, _ = line.measured(lambda p, low, cap=cap: SPSMax(p, cap, c=1.5, lower_bound=low), 60)
        bound = sps_max(line.constants, scale=1.5, cap=cap, distance=4.0, steps=60)
        assert found <= bound.total
        found, far = line.measured(lambda p, low, cap=cap: DecSPS(p, cap, c0=2.0, lower_bound=low), 60)
        bound = dec_sps(line.constants, cap=cap, diameter=far, steps=60, scale=2.0)
        assert found <= bound.total


def test_decsps_never_forgets_its_smallest_step():
    """f - f* of 8, 0.5 and 8 with ||g||^2 = 16: the second step bounds the third."""
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer, bound = DecSPS([x], 1.0), 1.0  # c_(k-1) gamma_(k-1)
    for k, f in enumerate((8.0, 0.5, 8.0)):
        before = float(x.detach())
        optimizer.step(lambda f=f: 4.0 * x.sum() - 4.0 * x.detach().sum() + f)
        bound = min(f / 16.0, bound)
        assert before - float(x.detach()) == pytest.approx(4.0 * bound / math.sqrt(k + 1), rel=1e-12)
    assert bound == 0.5 / 16.0
