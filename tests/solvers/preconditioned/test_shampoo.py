"""Shampoo against a plain reference for all numbers of dimensions, and what it is in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from solvers import Shampoo

SHAPES = [(), (4,), (3, 5), (2, 3, 4), (2, 3, 2, 2)]


def root(A, power):
    w, Q = np.linalg.eigh(A)
    return Q @ np.diag(w**power) @ Q.T


def gram(G, i):
    return np.tensordot(G, G, axes=[[j for j in range(G.ndim) if j != i]] * 2)


def shampoo_reference(w, gradient, lr, momentum, beta, eps, decay, every, limit):
    sides = [i for i in range(w.ndim) if w.shape[i] <= limit]
    new = 1.0 if beta == 1 else 1 - beta
    H, v, m, t = dict.fromkeys(sides, 0.0), 0.0, np.zeros_like(w), 0
    while True:
        G = gradient(w, t)
        t += 1
        scale = 1.0 if beta == 1 else 1 / (1 - beta**t)
        v = beta * v + new * G**2
        for i in sides:
            H[i] = beta * H[i] + new * gram(G, i)
        if (t - 1) % every == 0:
            roots = {i: root(scale * H[i] + eps * np.eye(len(H[i])), -1 / (2 * len(sides))) for i in sides}
        d = G
        for i in sides:
            d = np.moveaxis(np.tensordot(roots[i], d, axes=([1], [i])), 0, i)
        if not sides:
            d = G / np.sqrt(scale * v + eps)
        m = momentum * m + (1 - momentum) * d
        w = (1 - lr * decay) * w - lr * m
        yield w


CASES = {
    "sums": {"lr": 0.1, "momentum": 0.0, "beta": 1.0, "eps": 1e-4, "decay": 0.0, "every": 1, "limit": 100},
    "all else": {"lr": 0.02, "momentum": 0.8, "beta": 0.9, "eps": 1e-2, "decay": 0.1, "every": 3, "limit": 3},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, shape):
    rng = np.random.default_rng(0)
    tilts, scale = rng.standard_normal((4, *shape)), rng.uniform(0.5, 3, shape)
    settings = dict(CASES[case])
    p = nn.Parameter(torch.tensor(rng.standard_normal(shape)))
    path = shampoo_reference(p.detach().numpy().copy(), lambda w, t: scale * w**3 + tilts[t % 4], **settings)
    settings["weight_decay"] = settings.pop("decay")
    solver, S, T = Shampoo([p], **settings), torch.tensor(scale), torch.tensor(tilts)
    for t in range(100):
        solver.step(lambda t=t: (S * p**4 / 4 + T[t % 4] * p).sum())
        np.testing.assert_allclose(p.detach().numpy(), next(path), rtol=0, atol=1e-9)


def test_the_first_step_makes_singular_values_alike():
    """L^(-1/4) G R^(-1/4) = U V^T of G = U S V^T."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(4, 6).double())
    U, _, Vh = torch.linalg.svd(2 * p.detach(), full_matrices=False)
    start = p.detach().clone()
    Shampoo([p], 1.0, momentum=0.0, eps=1e-14).step(lambda: p.square().sum())
    torch.testing.assert_close(start - p.detach(), U @ Vh, rtol=1e-5, atol=1e-5)


def test_a_side_that_is_too_long_leaves_the_other_the_whole_power():
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(3, 8).double())
    G, start = 2 * p.detach(), p.detach().clone()
    Shampoo([p], 1.0, momentum=0.0, eps=1e-14, limit=5).step(lambda: p.square().sum())
    w, Q = torch.linalg.eigh(G @ G.T)
    torch.testing.assert_close(start - p.detach(), Q @ torch.diag(w**-0.5) @ Q.T @ G, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_finite_is_named():
    p = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="the gradient is not finite"):
        Shampoo([p], 0.1).step(lambda: p.sum() * float("inf"))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"lr": 0.1, "momentum": 1.0}, "momentum"),
        ({"lr": 0.1, "beta": 0.0}, "beta"),
        ({"lr": 0.1, "eps": 0.0}, "eps"),
        ({"lr": 0.1, "every": 0}, "every"),
        ({"lr": 0.1, "limit": -1}, "limit"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        Shampoo([torch.zeros(1, requires_grad=True)], **settings)
