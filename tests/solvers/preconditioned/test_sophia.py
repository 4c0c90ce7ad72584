"""Sophia against plain references: H by a dense Hessian, G by a loop over labels."""

import math

import numpy as np
import pytest
import torch
from curved_cases import PROBLEMS, check_against_reference
from newton_cases import generator
from small_network import data, flat, network
from torch.nn import functional as F

from solvers import Sophia
from solvers.preconditioned import sampled_labels


def sophia_reference(fgh, w, estimate, lr, betas, gamma, eps, decay, every):
    m = h = np.zeros_like(w)
    t = 0
    while True:
        _, g, H = fgh(w)
        if t % every == 0:
            h = betas[1] * h + (1 - betas[1]) * estimate(w, H)
        t += 1
        m = betas[0] * m + (1 - betas[0]) * g
        w = w - lr * decay * w
        w = w - lr * np.clip(m / np.maximum(gamma * h, eps), -1, 1)
        yield w


CASES = {
    "usual": {"lr": 0.02, "betas": (0.96, 0.9), "gamma": 1.0, "eps": 1e-12, "decay": 0.0, "every": 10},
    "all else": {"lr": 0.01, "betas": (0.5, 0.5), "gamma": 0.5, "eps": 1e-2, "decay": 0.1, "every": 3},
}


def ours(settings):
    return {"weight_decay" if key == "decay" else key: value for key, value in settings.items()}


@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_sophia_h_step_by_step(monkeypatch, case, problem):
    settings = CASES[case]

    def reference(fgh, w, probe):
        def estimate(w, H):
            u = probe()
            return u * (H @ u)

        return sophia_reference(fgh, w, estimate, **settings)

    make = lambda p: Sophia(p, **ours(settings), generator=generator())  # noqa: E731
    check_against_reference(monkeypatch, make, reference, problem)


@pytest.mark.parametrize("case", list(CASES))
def test_sophia_g_step_by_step(monkeypatch, case):
    """Labels are those that the run has drawn; B g^ * g^ of their mean loss."""
    settings, drawn, draw = CASES[case], [], sampled_labels.categorical

    def recording(p, dim, generator):
        drawn.append(draw(p, dim, generator))
        return drawn[-1]

    monkeypatch.setattr(sampled_labels, "categorical", recording)
    model, (X, y) = network(), data()
    names = [(name, p.shape) for name, p in model.named_parameters()]
    start = flat(model).numpy().copy()

    def loss(w, labels):
        pieces = torch.as_tensor(w).split([s.numel() for _, s in names])
        named = {name: piece.reshape(s) for piece, (name, s) in zip(pieces, names, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, named, (X,)), labels)

    slope = lambda w, labels: torch.func.grad(loss)(torch.tensor(w), labels).numpy()  # noqa: E731
    solver = Sophia(model.parameters(), curvature="gauss-newton", **ours(settings), generator=generator())
    ends = []
    for _ in range(40):
        solver.step(lambda: F.cross_entropy(model(X), y))
        ends.append(flat(model).numpy().copy())
    labels = iter(drawn)
    estimate = lambda w, H: len(y) * slope(w, next(labels).reshape(-1)) ** 2  # noqa: E731
    path = sophia_reference(lambda w: (None, slope(w, y), None), start, estimate, **settings)
    for w in ends:
        np.testing.assert_allclose(next(path), w, rtol=0, atol=1e-10)
    assert next(labels, None) is None
    assert all(len(set(one.reshape(-1).tolist())) > 1 for one in drawn)


def test_without_memory_or_clipping_it_is_newton_on_a_diagonal_quadratic():
    """u * (H u) = u^2 H there: a step of 1 / u^2 of Newton's, so with many u about 1 of it."""
    x = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    solver = Sophia([x], 1.0, betas=(0.0, 0.0), gamma=1.0, probes=2000, generator=generator())
    solver.step(lambda: (x.square() * torch.tensor([1.0, 50.0])).sum())
    assert float(x.detach().abs().max()) < 0.05


def test_where_curvature_is_not_positive_the_sign_decides():
    x = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    solver = Sophia([x], 0.1, generator=generator())
    assert math.isnan(solver.clipped())
    solver.step(lambda: -x.square().sum())
    torch.testing.assert_close(x.detach(), torch.tensor([0.4, -0.3]).double())
    assert solver.clipped() == 1.0


def test_what_was_clipped():
    """m = (0.5, 0.1) and h = 1: entries above gamma h were."""
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    solver = Sophia([x], 0.1, betas=(0.0, 0.9), gamma=0.3, generator=generator())
    solver.step(lambda: (x * torch.tensor([0.5, 0.1])).sum() + 0.5 * x.square().sum())
    solver.state[x]["curvature"].fill_(1.0)
    assert solver.clipped() == 0.5


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"curvature": "fisher"}, "curvature"),
        ({"betas": (0.9,)}, "betas"),
        ({"gamma": 0.0}, "gamma"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"every": 0}, "every"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        Sophia([torch.zeros(1, requires_grad=True)], 0.1, **settings)
