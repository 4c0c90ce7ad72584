"""PSGD against a reference with whole Kronecker matrices, and its theory: what the preconditioner comes to."""

import math

import numpy as np
import pytest
import torch
from curved_cases import dense_hessian, recorded
from newton_cases import generator
from rule_cases import SHARES, groups_of, quadratic
from torch import nn

from solvers import PSGD
from solvers.preconditioned import psgd


def whole(factors):
    """Q, by columns of the flat parameter."""
    Q = np.ones((1, 1))
    for one in factors:
        Q = np.kron(Q, np.diag(one) if one.ndim == 1 else one)
    return Q


def side(C, shape, i):
    """The moments of side i of a vector whose moments are C: all other sides are traced out."""
    letters = "abc"[: len(shape)]
    other = letters.replace(letters[i], "z")
    return np.einsum(f"{letters}{other}->{letters[i]}z", C.reshape(*shape, *shape))


def schatten(T):
    return (np.linalg.eigvalsh(T) ** 4).sum() ** 0.25


def fit_reference(one, h, v, s):
    shape, n, triangular = h.shape, h.size, s["form"] == "triangular"
    if "Q" not in one:
        second = 1.0 if v is None else np.mean(v**2)
        size = (second**0.25 * np.mean(h**4) ** -0.125) ** (1 / len(shape))
        one["Q"] = [size * (np.ones(d) if d > s["limit"] else np.eye(d)) for d in shape]
        one["L"], one["fits"] = [0.0] * len(shape), 0
    Q = whole(one["Q"])
    M = Q if triangular else Q.T @ Q
    R = np.linalg.inv(Q).T if triangular else np.eye(n)
    if v is None:
        T = M @ (np.outer(h, h) + s["damping"] ** 2 * np.eye(n)) @ M.T
        S = R @ R.T
    else:
        h = h + s["damping"] * v
        T, S = M @ np.outer(h, h) @ M.T, R @ np.outer(v, v) @ R.T
    new = []
    for i, q in enumerate(one["Q"]):
        t, u = side(T, shape, i), side(S, shape, i)
        if q.ndim == 1:
            t, u = np.diag(t), np.diag(u)
        bound = max(t + u) if q.ndim == 1 else schatten(t + u)
        one["L"][i] = max(0.9 * one["L"][i] + 0.1 * bound, bound)
        E = s["rate"] / one["L"][i] * (t - u)
        if triangular:
            new.append(q * (1 - E) if q.ndim == 1 else q - np.triu(E) @ q)
        else:
            half = np.eye(len(q)) - E / 2 if q.ndim == 2 else 1 - E / 2
            new.append(half @ q @ half if q.ndim == 2 else half**2 * q)
    one["fits"] += 1
    if one["fits"] % 100 == 0:
        largest = [np.abs(q).max() for q in new]
        new = [q * np.prod(largest) ** (1 / len(new)) / m for q, m in zip(new, largest, strict=True)]
    one["Q"] = new


def psgd_reference(thetas, gradients, pairs, state, settings):
    t = state["t"] = state.get("t", 0) + 1
    for i, (x, g, s) in enumerate(zip(thetas, gradients, settings, strict=True)):
        one = state.setdefault(i, {"m": np.zeros_like(g)})
        one["m"] = s["momentum"] * one["m"] + (1 - s["momentum"]) * g
        mean = one["m"] / (1 - s["momentum"] ** t)
        v, h = pairs[i] if pairs else (None, mean if s["fit"] == "momentum" else g)
        fit_reference(one, h, v, s)
        Q = whole(one["Q"])
        d = (Q.T @ Q @ mean.reshape(-1)).reshape(g.shape)
        d = d * min(1.0, s["clip"] / math.sqrt(np.mean(d**2)))
        thetas[i] = (1 - s["lr"] * s["weight_decay"]) * x - s["lr"] * d
    return thetas


USUAL = {"lr": 0.01, "momentum": 0.9, "fit": "gradient", "rate": 0.1, "damping": 1e-9, "clip": 1.0, "weight_decay": 0.0}
ELSE = {"lr": 0.02, "momentum": 0.5, "fit": "momentum", "rate": 0.3, "damping": 0.2, "clip": 0.5, "weight_decay": 0.1}
CASES = {
    "whitening": (1000, {**USUAL, "form": "triangular", "limit": 9}),
    "whitening-diagonal": (150, {**ELSE, "form": "triangular", "limit": 2}),
    "whitening-dense": (150, {**ELSE, "form": "dense", "limit": 3}),
    "newton": (150, {**ELSE, "form": "triangular", "limit": 3}),
    "newton-dense": (1000, {**USUAL, "form": "dense", "limit": 9}),
    "newton-diagonal": (150, {**USUAL, "form": "dense", "limit": 2}),
}


@pytest.mark.parametrize("name", list(CASES))
def test_step_by_step(name, monkeypatch):
    """Both run by themselves, to 1e-12; whitening by closures and by backward() in turn."""
    steps, settings = CASES[name]
    start, loss = quadratic()
    newton = name.startswith("newton")
    drawn = recorded(monkeypatch, psgd)
    fast = [t.clone().requires_grad_() for t in start]
    H = dense_hessian(lambda: loss(fast, 0), fast).numpy()
    variant = "newton" if newton else "whitening"
    solver = PSGD(groups_of(fast, settings), **settings, variant=variant, generator=generator())
    slow, state = [t.numpy() for t in start], {}
    each = [{**settings, "lr": settings["lr"] * SHARES[i]} for i in range(2)]
    for k in range(steps):
        if newton or k % 2:
            solver.step(lambda k=k: loss(fast, k))
        else:
            solver.zero_grad()
            loss(fast, k).backward()
            solver.step()
        leaves = [torch.tensor(t, requires_grad=True) for t in slow]
        gradients = [g.numpy() for g in torch.autograd.grad(loss(leaves, k), leaves)]
        pairs = []
        if newton:
            v = drawn[k]
            pairs = [(v[:4], (H @ v)[:4]), (v[4:].reshape(2, 3), (H @ v)[4:].reshape(2, 3))]
        slow = psgd_reference(slow, gradients, pairs, state, each)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=0, atol=1e-12)
    assert len(drawn) == (steps if newton else 0)


def designed(n, kappa, seed, signs=1):
    """Eigenvalues from 1 to kappa, with alternate signs for signs = -1."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return torch.tensor((Q * (np.geomspace(1, kappa, n) * signs ** np.arange(n))) @ Q.T)


def power(A, p):
    """|A|^p."""
    w, U = torch.linalg.eigh(A)
    return (U * w.abs() ** p) @ U.T


def metric(state):
    Q = torch.tensor(whole([q.numpy() for q in state["factors"]]))
    return Q, Q.T @ Q


@pytest.mark.parametrize("form", ["triangular", "dense"])
def test_newton_comes_to_the_inverse_of_a_kronecker_hessian(form):
    """f = <W, A W B> / 2 has H = A x B: the spread of Q H Q^T falls to 1, geometrically, and P is H^(-1)."""
    A, B = designed(4, 10, 0), designed(3, 5, 1)
    H, W = torch.kron(A, B), nn.Parameter(torch.ones(4, 3).double())
    solver = PSGD([W], 0.0, variant="newton", form=form, rate=0.3, damping=0.0, generator=generator())
    spreads = []
    for k in range(401):
        solver.step(lambda: 0.5 * (W * (A @ W @ B)).sum())
        if k % 200 == 0:
            Q, P = metric(solver.state[W])
            w = torch.linalg.eigvalsh(Q @ H @ Q.T)
            spreads.append(float(w[-1] / w[0]) - 1)
    assert spreads[0] > 20
    assert spreads[1] < 0.1
    assert spreads[2] < 1e-2
    torch.testing.assert_close(P @ H, torch.eye(12).double(), rtol=0, atol=1e-2)
    if form == "triangular":
        assert all(torch.equal(q, torch.triu(q)) and bool((q.diagonal() > 0).all()) for q in solver.state[W]["factors"])


def test_newton_comes_to_the_inverse_of_the_absolute_value():
    """H is indefinite: P is |H|^(-1), to the noise of one v a step."""
    A = designed(4, 10, 0, signs=-1)
    x = nn.Parameter(torch.ones(4).double())
    solver = PSGD([x], 0.0, variant="newton", generator=generator())
    for rate in [0.3] * 200 + [0.05] * 200 + [0.01] * 500:
        solver.param_groups[0]["rate"] = rate
        solver.step(lambda: 0.5 * x @ A @ x)
    _, P = metric(solver.state[x])
    assert float((P - power(A, -1)).norm() / power(A, -1).norm()) < 0.08
    assert float((P - torch.linalg.inv(A)).norm() / power(A, -1).norm()) > 0.5


@pytest.mark.parametrize("form", ["triangular", "dense"])
def test_whitening_comes_to_the_inverse_root_of_the_second_moments(form):
    """Gradients sqrt(n) C^(1/2) e_k in turn have E[g g^T] = C, a Kronecker product; damping adds its square."""
    C = torch.kron(designed(3, 6, 0), designed(2, 4, 1))
    root = math.sqrt(6) * power(C, 0.5)
    W = nn.Parameter(torch.zeros(3, 2).double())
    solver = PSGD([W], 0.0, form=form, damping=0.0, momentum=0.0)
    for k in range(600):
        solver.param_groups[0]["rate"] = 0.1 if k < 300 else 0.01
        W.grad = root[k * 5 % 6].reshape(3, 2)
        solver.step()
    _, P = metric(solver.state[W])
    assert float((P - power(C, -0.5)).norm() / power(C, -0.5).norm()) < 0.04
    x = nn.Parameter(torch.zeros(2).double())
    damped = PSGD([x], 0.0, form=form, damping=3.0)
    for _ in range(200):
        x.grad = torch.tensor([4.0, 0.0]).double()
        damped.step()
    torch.testing.assert_close(metric(damped.state[x])[1], torch.diag(torch.tensor([1 / 5, 1 / 3])).double())


def test_a_constant_gradient_becomes_its_polar_factor():
    """P G has orthogonal rows of length sqrt(n), so that it is Muon's step; without matrices it is the sign."""
    G = designed(3, 20, 2) @ designed(3, 1.0001, 3)
    W, x = nn.Parameter(torch.zeros(3, 3).double()), nn.Parameter(torch.zeros(4).double())
    solver = PSGD([{"params": [W], "form": "dense"}, {"params": [x], "limit": 0}], 1.0, momentum=0.0, clip=None)
    for _ in range(300):
        before = [W.detach().clone(), x.detach().clone()]
        W.grad, x.grad = G.clone(), torch.tensor([2.0, -0.5, 0.2, -1.0]).double()
        solver.step()
    U, _, Vh = torch.linalg.svd(G)
    torch.testing.assert_close(before[0] - W.detach(), math.sqrt(3) * U @ Vh, rtol=0, atol=1e-6)
    torch.testing.assert_close(before[1] - x.detach(), torch.tensor([1.0, -1.0, 1.0, -1.0]).double(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("variant", ["whitening", "newton"])
def test_a_multiple_of_the_loss_has_the_same_way(variant):
    ends, (start, loss) = [], quadratic()
    for c in (1.0, 1000.0):
        thetas = [t.clone().requires_grad_() for t in start]
        solver = PSGD(thetas, 0.05, variant=variant, damping=0.0, generator=generator())
        for k in range(40):
            solver.step(lambda c=c, k=k, t=thetas: c * loss(t, k))
        ends.append(torch.cat([t.detach().reshape(-1) for t in thetas]))
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)
    assert float((ends[0] - 1).abs().max()) > 0.1


def test_newtons_steps_on_a_quadratic():
    """Curvatures from 1 to 1000, 400 steps: f falls by 1e9 and more, that of the best gradient descent by e^1.6."""
    A = designed(8, 1000, 0)
    x = nn.Parameter(torch.ones(8).double())
    solver = PSGD([x], 0.5, variant="newton", momentum=0.0, clip=None, form="dense", generator=generator())
    losses = [float(solver.step(lambda: 0.5 * x @ A @ x)) for _ in range(400)]
    assert losses[-1] < 1e-9 * losses[0]


def test_factors_are_balanced():
    """Sizes that one factor has and the other lacks play no part, and are shared out within 100 fits."""
    found = []
    for factor in (1.0, 1e6):
        W = nn.Parameter(torch.zeros(3, 2).double())
        solver = PSGD([W], 0.0)
        for k in range(100):
            W.grad = torch.tensor(np.random.default_rng(k).standard_normal((3, 2)))
            solver.step()
            if k == 0:
                first, second = solver.state[W]["factors"]
                solver.state[W]["factors"] = [first * factor, second / factor]
        found.append(solver.state[W]["factors"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_how_often_it_is_fit():
    p = nn.Parameter(torch.ones(3))
    solver = PSGD([p], 0.01, every=2, probability=0.25, generator=generator())
    for _ in range(400):
        solver.step(lambda: p.square().sum())
    fits = solver.state[p]["fits"]
    assert abs(fits - 50) < 3 * math.sqrt(200 * 0.25 * 0.75)


def test_scalars_and_empty_parameters():
    a, b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    for variant in ("whitening", "newton"):
        solver = PSGD([a, b], 0.1, variant=variant)
        losses = [float(solver.step(lambda: a.square() + b.sum() ** 2)) for _ in range(5)]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("variant", ["whitening", "newton"])
def test_a_gradient_that_is_not_finite_moves_nothing(variant):
    p = nn.Parameter(torch.ones(3))
    solver = PSGD([p], 0.1, variant=variant)
    with pytest.raises(ValueError, match="the norm of the gradient is inf: nothing was moved"):
        solver.step(lambda: (p * torch.tensor([1.0, math.inf, 1.0])).sum() + p.square().sum())
    assert torch.equal(p.detach(), torch.ones(3))
    assert not solver.state[p]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"variant": "fisher"}, "variant"),
        ({"momentum": 1.0}, "momentum"),
        ({"fit": "loss"}, "fit"),
        ({"rate": 1.0}, "rate"),
        ({"damping": -1.0}, "damping"),
        ({"scale": 0.0}, "scale"),
        ({"clip": 0.0}, "clip"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"form": "low-rank"}, "form"),
        ({"limit": -1}, "limit"),
        ({"every": 0}, "every"),
        ({"probability": 0.0}, "probability"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        PSGD([torch.zeros(1, requires_grad=True)], **{"lr": 0.1, **settings})
