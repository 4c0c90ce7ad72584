"""SOAP against a plain reference for all numbers of dimensions, Adam where there is no basis, and what rotations do."""

import numpy as np
import pytest
import torch
from torch import nn

from solvers import SOAP

# no side is longer than the others' product: its factor would be singular at first, with bases that are not unique
SHAPES = [(), (4,), (4, 4), (2, 3, 4), (2, 3, 2, 2)]


def along(G, M, i):
    """M^T on side i."""
    return np.moveaxis(np.tensordot(M, G, axes=([0], [i])), 0, i)


def gram(G, i):
    return np.tensordot(G, G, axes=[[j for j in range(G.ndim) if j != i]] * 2)


def soap_reference(w, gradient, lr, betas, factor_beta, eps, decay, every, limit):
    sides = [i for i in range(w.ndim) if w.shape[i] <= limit] if w.ndim > 1 else []
    m = v = np.zeros_like(w)
    H = dict.fromkeys(sides, 0.0)
    Q, t, k = None, 0, 0
    while True:
        G = gradient(w, k)
        k += 1
        if Q is not None or not sides:
            t += 1
            turned = G
            for i in sides:
                turned = along(turned, Q[i], i)
            m = betas[0] * m + (1 - betas[0]) * G
            v = betas[1] * v + (1 - betas[1]) * turned**2
            d = m / (1 - betas[0] ** t)
            for i in sides:
                d = along(d, Q[i], i)
            d = d / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
            for i in sides:
                d = along(d, Q[i].T, i)
            w = (1 - lr * decay) * w - lr * d
        for i in sides:
            H[i] = factor_beta * H[i] + (1 - factor_beta) * gram(G, i)
        if Q is None:
            Q = {i: np.linalg.eigh(H[i])[1][:, ::-1] for i in sides}
        elif t % every == 0:
            for i in sides:
                order = np.argsort(-np.diag(Q[i].T @ H[i] @ Q[i]), kind="stable")
                v = np.take(v, order, axis=i)
                Q[i] = np.linalg.qr(H[i] @ Q[i][:, order])[0]
        yield w


CASES = {
    "usual": {
        "lr": 0.02,
        "betas": (0.95, 0.95),
        "factor_beta": 0.95,
        "eps": 1e-8,
        "decay": 0.0,
        "every": 1,
        "limit": 9,
    },
    "else": {"lr": 0.01, "betas": (0.5, 0.9), "factor_beta": 0.8, "eps": 1e-3, "decay": 0.1, "every": 4, "limit": 3},
}


@pytest.mark.parametrize(("case", "shape"), [*((c, s) for c in CASES for s in SHAPES), ("else", (3, 5))])
def test_step_by_step(case, shape):
    rng = np.random.default_rng(0)
    tilts, scale = rng.standard_normal((7, *shape)), rng.uniform(0.5, 3, shape)
    settings = dict(CASES[case])
    p = nn.Parameter(torch.tensor(rng.standard_normal(shape)))
    path = soap_reference(p.detach().numpy().copy(), lambda w, k: scale * w**3 + tilts[k % 7], **settings)
    settings["weight_decay"] = settings.pop("decay")
    solver, S, T = SOAP([p], **settings), torch.tensor(scale), torch.tensor(tilts)
    for k in range(60):
        solver.step(lambda k=k: (S * p**4 / 4 + T[k % 7] * p).sum())
        np.testing.assert_allclose(p.detach().numpy(), next(path), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(), (5,), (6, 7)])
def test_without_bases_it_is_adam(shape):
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(shape).double())
    q = nn.Parameter(p.detach().clone())
    ours, theirs = SOAP([p], 0.05, betas=(0.9, 0.99), limit=5), torch.optim.Adam([q], 0.05, betas=(0.9, 0.99))
    for _ in range(50):
        ours.step(lambda: (p**4).sum())
        theirs.zero_grad()
        (q**4).sum().backward()
        theirs.step()
    torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-10, atol=1e-12)


def test_turning_the_parameter_turns_the_way():
    """f(U W V^T) from U^T W_0 V goes the same way, turned: Adam's does not."""
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(k, k).double())[0] for k in (4, 5))
    A, W0 = torch.rand(4, 5).double() + 0.5, torch.randn(4, 5).double()
    tilts = torch.randn(5, 4, 5).double()
    ends = {}
    for kind in (SOAP, torch.optim.Adam):
        losses = []
        for left, right in ((torch.eye(4).double(), torch.eye(5).double()), (U, V)):
            W = nn.Parameter(left.T @ W0 @ right)
            solver, seen = kind([W], lr=0.05), []
            for k in range(40):
                full = left @ W @ right.T
                loss = (A * full**2).sum() + (tilts[k % 5] * full).sum()
                W.grad = torch.autograd.grad(loss, W)[0]
                solver.step()
                seen.append(float(loss.detach()))
            losses.append(seen)
        ends[kind] = max(abs(a - b) for a, b in zip(*losses, strict=True))
    assert ends[SOAP] < 1e-8
    assert ends[torch.optim.Adam] > 0.1


def test_bases_stay_orthogonal_and_come_to_the_eigenvectors():
    torch.manual_seed(0)
    C = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.3])).double()
    R = torch.linalg.qr(torch.randn(4, 4).double())[0]
    p = nn.Parameter(torch.zeros(4, 6).double())
    solver = SOAP([p], 0.0, every=1, factor_beta=0.99)
    for _ in range(400):
        tilt = R @ C @ torch.randn(4, 6).double()
        solver.step(lambda tilt=tilt: (tilt * p).sum())
    Q = solver.state[p]["bases"][0]
    torch.testing.assert_close(Q.T @ Q, torch.eye(4).double(), rtol=0, atol=1e-12)
    turned = Q.T @ solver.state[p]["factors"][0] @ Q
    away = turned - torch.diag(turned.diag())
    assert float(away.norm() / turned.norm()) < 1e-2
    assert bool((turned.diag().diff() < 0).all())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"factor_beta": 1.0}, "factor_beta"),
        ({"eps": 0.0}, "eps"),
        ({"every": 0}, "every"),
        ({"limit": -1}, "limit"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        SOAP([torch.zeros(1, requires_grad=True)], **settings)
