"""SANIA against plain references, what does not depend on scales, and bad losses."""

import math

import numpy as np
import pytest
import torch
from curved_cases import PROBLEMS, check_against_reference
from newton_cases import generator
from rule_cases import check_grad_scaler, check_loss_rule
from torch import nn

from solvers import SANIA

LOWER = -50.0  # the quadratic's minimum is below 0


def sania_reference(fgh, w, probe, lr, metric, beta, eps, every):
    B = np.zeros_like(w)
    k = 0
    while True:
        f, g, H = fgh(w)
        if metric == "hessian" and k % every == 0:
            z = probe()
            B = z * (H @ z) if k == 0 else beta * B + (1 - beta) * z * (H @ z)
        k += 1
        if metric == "adagrad":
            B = B + g**2
        elif metric == "adam":
            B = beta * B + (1 - beta) * g**2
        shown = B / (1 - beta**k) if metric == "adam" else np.abs(B)
        d = g / np.maximum(shown, eps)
        N = g @ d
        gap = f - LOWER
        s = 1 - math.sqrt(1 - 2 * gap / N) if 2 * gap < N else 1.0
        w = w - lr * s * d
        yield w


CASES = {
    "adagrad": {"lr": 0.1, "metric": "adagrad", "beta": 0.9, "eps": 1e-3, "every": 1},
    "adam": {"lr": 0.01, "metric": "adam", "beta": 0.9, "eps": 1e-2, "every": 1},
    "hessian": {"lr": 0.3, "metric": "hessian", "beta": 0.9, "eps": 0.5, "every": 3},
}


@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(monkeypatch, case, problem):
    check_against_reference(
        monkeypatch,
        lambda p: SANIA(p, **CASES[case], lower_bound=LOWER, generator=generator()),
        lambda fgh, w, probe: sania_reference(fgh, w, probe, **CASES[case]),
        problem,
        1e-8,
    )


@pytest.mark.parametrize("metric", ["adagrad", "adam"])
def test_scales_of_parameters_play_no_part(metric):
    """The loss as a function of S x, from S^(-1) x: the same losses. Data that a line separates: f* = 0."""
    X = torch.randn(30, 4, generator=generator(), dtype=torch.float64)
    y = (X @ torch.tensor([1.0, -2.0, 0.5, 1.0]).double()).sign()
    losses = []
    for scale in (torch.ones(4), torch.tensor([1e-3, 1.0, 50.0, 1e4])):
        S = scale.double()
        x = nn.Parameter(torch.full((4,), 0.1).double() / S)
        solver = SANIA([x], metric=metric, eps=1e-30, generator=generator(3))
        losses.append(
            [float(solver.step(lambda x=x, S=S: nn.functional.softplus(-y * (X @ (S * x))).mean())) for _ in range(30)]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < 0.5 * losses[0][0]


@pytest.mark.parametrize("target", [0.5, 0.3])
def test_the_step_is_where_the_model_meets_the_bound(target):
    """f - s N + s^2 N / 2 = f* for the least s: with B = H on a quadratic that is the loss after the step."""
    x = nn.Parameter(torch.tensor([3.0, -2.0]).double())
    closure = lambda: (x.square() * torch.tensor([1.0, 50.0])).sum()  # noqa: E731
    start = float(closure().detach())
    solver = SANIA([x], metric="hessian", eps=1e-8, lower_bound=target * start)
    solver.step(closure)
    assert float(closure().detach()) == pytest.approx(target * start)
    assert solver.last.shrink == pytest.approx(1 - math.sqrt(target))


def test_losses_and_gradients_that_are_not_finite():
    check_loss_rule(lambda p, **k: SANIA(p, **k), {"lr": 1.0, "metric": "adam"})
    p = nn.Parameter(torch.ones(3))
    solver = SANIA([p], metric="hessian")
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"the loss is .*: nothing was moved"):
            solver.step(lambda bad=bad: p.square().sum() * bad)
    with pytest.raises(ValueError, match="pass a smaller lower_bound="):
        solver.step(lambda: p.square().sum() - 10)
    assert torch.equal(p, torch.ones(3))
    assert not any(solver.state.values())


def test_a_grad_scaler():
    check_grad_scaler(lambda p, **k: SANIA(p, **k), {"lr": 0.5, "metric": "adagrad"})


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"metric": "newton"}, "metric"), ({"eps": 0.0}, "eps"), ({"beta": 1.0}, "beta"), ({"lr": -1.0}, "lr")],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        SANIA([torch.zeros(1, requires_grad=True)], **settings)
