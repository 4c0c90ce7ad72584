"""OASIS against a plain reference: the adaptive step size on one loss and on mini-batches."""

import math

import numpy as np
import pytest
import torch
from curved_cases import PROBLEMS, check_against_reference, recorded
from newton_cases import generator
from torch import nn

from solvers import OASIS


def oasis_reference(gradient, hessian, w, probe, lr, adaptive, first, beta, alpha, momentum, every):
    """gradient(w, k), hessian(w, k): of step k's batch."""
    D = m = old = None
    etas, k = [], 0
    while True:
        g = gradient(w, k)
        if k % every == 0:
            z = probe()
            d = z * (hessian(w, k) @ z)
            D = d if D is None else beta * D + (1 - beta) * d
        metric = np.maximum(np.abs(D), alpha)
        if not adaptive:
            eta = 1.0
        elif old is None:
            eta = first
        else:
            change = g - gradient(old, k)
            bound = np.sqrt((w - old) ** 2 @ metric) / (2 * np.sqrt(change**2 @ (1 / metric)))
            grown = math.sqrt(1 + etas[-1] / etas[-2]) * etas[-1] if len(etas) > 1 else math.inf
            eta = min(bound, grown)
        etas.append(eta)
        m = (1 - momentum) * g + momentum * (np.zeros_like(w) if m is None else m)
        old, w, k = w, w - lr * eta * m / metric, k + 1
        yield w


CASES = {
    "adaptive": {"lr": 1.0, "adaptive": True, "first": 0.01, "beta": 0.95, "alpha": 0.1, "momentum": 0.0, "every": 1},
    "all else": {"lr": 0.5, "adaptive": True, "first": 0.1, "beta": 0.5, "alpha": 0.3, "momentum": 0.5, "every": 3},
    "fixed": {"lr": 0.1, "adaptive": False, "first": 1.0, "beta": 0.9, "alpha": 0.3, "momentum": 0.3, "every": 2},
}


@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("full_batch", [True, False])
def test_step_by_step(monkeypatch, case, problem, full_batch):
    solver = check_against_reference(
        monkeypatch,
        lambda p: OASIS(p, **CASES[case], full_batch=full_batch, generator=generator()),
        lambda fgh, w, probe: oasis_reference(lambda w, k: fgh.g(w), lambda w, k: fgh(w)[2], w, probe, **CASES[case]),
        problem,
        1e-6 if CASES[case]["adaptive"] else 1e-9,
        most=25,  # 0 / 0 in the end: the bound is of differences
    )
    assert solver.eta > 0 or not CASES[case]["adaptive"]


def test_mini_batches_compare_gradients_of_one_batch(monkeypatch):
    """Two groups with an lr of their own too: one eta for both."""
    drawn = recorded(monkeypatch)
    rng = generator(1)
    tilts = torch.randn(60, 5, generator=rng, dtype=torch.float64)
    A = torch.diag(torch.linspace(0.2, 3, 5).double()) + 0.1
    p, q = (nn.Parameter(torch.ones(k, dtype=torch.float64)) for k in (2, 3))
    settings = {**CASES["adaptive"], "first": 0.05}
    solver = OASIS([{"params": [p]}, {"params": [q], "lr": 0.5}], **settings, generator=generator())
    scale = np.array([1, 1, 0.5, 0.5, 0.5])
    ends, etas = [], []
    for tilt in tilts:
        solver.step(lambda tilt=tilt: (lambda x: 0.5 * x @ A @ x * (1 + tilt[0] ** 2) + tilt @ x)(torch.cat([p, q])))
        ends.append(torch.cat([p, q]).detach().numpy().copy())
        etas.append(solver.eta)
    probes, T, M = iter(drawn), tilts.numpy(), A.numpy()
    path = oasis_reference(
        lambda w, k: (1 + T[k, 0] ** 2) * M @ w + T[k],
        lambda w, k: (1 + T[k, 0] ** 2) * M,
        np.ones(5),
        lambda: next(probes),
        **{**settings, "lr": scale},
    )
    for w in ends:
        np.testing.assert_allclose(next(path), w, rtol=0, atol=1e-8)
    assert len(set(etas)) > 20


def test_a_diagonal_quadratic_gives_half_of_newtons_step():
    x = torch.tensor([3.0, -2.0], dtype=torch.float64, requires_grad=True)
    solver = OASIS([x], first=0.5, full_batch=True)
    for _ in range(3):
        solver.step(lambda: (x.square() * torch.tensor([1.0, 50.0])).sum())
    assert solver.eta == pytest.approx(0.5)
    torch.testing.assert_close(x.detach(), torch.tensor([3.0, -2.0]).double() / 8)


def test_parameters_come_back_when_the_closure_fails_at_the_last_point():
    x = torch.tensor([3.0, -2.0], requires_grad=True)
    solver, calls = OASIS([x], first=0.1), []

    def closure():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return x.square().sum()

    solver.step(closure)
    before = x.detach().clone()
    with pytest.raises(KeyboardInterrupt):
        solver.step(closure)
    assert torch.equal(before, x.detach())


def test_where_nothing_changes_eta_stays():
    x = torch.tensor([3.0, -2.0], requires_grad=True)
    solver = OASIS([x], first=0.1)
    for lr in (1.0, 0.0, 1.0):
        solver.param_groups[0]["lr"] = lr
        solver.step(lambda: x.sum())  # no change of the gradient at all
        assert solver.eta == 0.1


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"first": 0.0}, "first"), ({"beta": 1.0}, "beta"), ({"alpha": 0.0}, "alpha"), ({"momentum": 1.0}, "momentum")],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        OASIS([torch.zeros(1, requires_grad=True)], **settings)
    assert math.isnan(OASIS([torch.zeros(1, requires_grad=True)]).eta)
