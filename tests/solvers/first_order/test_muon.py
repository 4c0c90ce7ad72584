"""Muon and steepest descent against plain references, torch's own Muon, and what makes them Scion, AdamW and SGD."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from rule_cases import (
    check_against_reference,
    check_beside_reference,
    check_bfloat16,
    check_grad_scaler,
    check_missing_gradients,
    check_resumes,
    network,
)
from torch import nn

from landscape.norms import dual_norm
from solvers import SGD, Muon, Scion, SteepestDescent, muon_groups


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def polar(M, exact=True):
    """U V^T by SciPy, or Jordan's five steps."""
    if exact:
        return torch.from_numpy(scipy.linalg.polar(M.numpy())[0])
    if M.shape[0] > M.shape[1]:
        return polar(M.T, exact).T
    X = M / M.norm()
    for _ in range(5):
        X = 3.4445 * X - 4.7750 * (X @ X.T) @ X + 2.0315 * (X @ X.T) @ (X @ X.T) @ X
    return X


def muon_reference(thetas, gradients, loss, state, settings):
    """Step by step as published: sums with Nesterov, not means."""
    t = state["t"] = state.get("t", 0) + 1
    M = state.setdefault("M", [torch.zeros_like(x) for x in thetas])
    V = state.setdefault("V", [torch.zeros_like(x) for x in thetas])
    for i, (x, g, s) in enumerate(zip(thetas, gradients, settings, strict=True)):
        if x.ndim == 1:
            (b1, b2), lr = s["betas"], s["lr"] * s["adam_lr"]
            M[i], V[i] = b1 * M[i] + (1 - b1) * g, b2 * V[i] + (1 - b2) * g**2
            step = M[i] / (1 - b1**t) / ((V[i] / (1 - b2**t)).sqrt() + s["eps"])
        else:
            lr, (out, fan_in) = s["lr"], x.shape
            M[i] = s["momentum"] * M[i] + g
            d = s["momentum"] * M[i] + g if s["nesterov"] else M[i]
            scale = {"original": math.sqrt(max(1, out / fan_in)), "rms": 0.2 * math.sqrt(max(out, fan_in)), "none": 1}
            step = scale[s["scale"]] * polar(d, s["exact"])
        thetas[i] = x - lr * s["weight_decay"] * x - lr * step
    return thetas


MUON = {
    "usual": {"exact": True, "nesterov": True, "scale": "original", "weight_decay": 0.0, "momentum": 0.95},
    "rms": {"exact": True, "nesterov": False, "scale": "rms", "weight_decay": 0.1, "momentum": 0.5},
    "newton-schulz": {"exact": False, "nesterov": True, "scale": "none", "weight_decay": 0.1, "momentum": 0.9},
}
COMMON = {"lr": 0.01, "adam_lr": 0.3, "betas": (0.8, 0.9), "eps": 1e-6}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("usual", "quadratic"),
        pytest.param("rms", "quadratic", marks=pytest.mark.slow),
        pytest.param("newton-schulz", "quadratic", marks=pytest.mark.slow),
        ("newton-schulz", "network"),
    ],
)
def test_muon_step_by_step(name, problem):
    """1,000 steps on the quadratic, to 1e-12. A softmax layer's gradient is singular: no polar factor to agree on."""
    check_beside_reference(Muon, muon_reference, {**COMMON, **MUON[name]}, problem)


def steepest_reference(thetas, gradients, loss, state, settings):
    M = state.setdefault("M", [torch.zeros_like(x) for x in thetas])
    for i, (x, g, s) in enumerate(zip(thetas, gradients, settings, strict=True)):
        M[i] = s["momentum"] * M[i] + (1 - s["momentum"]) * g
        step = M[i]
        if x.ndim > 1:
            step = torch.linalg.svdvals(M[i]).sum() * polar(M[i])
        thetas[i] = (1 - s["lr"] * s["weight_decay"]) * x - s["lr"] * step
    return thetas


def test_steepest_descent_step_by_step():
    settings = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.1}
    check_against_reference(SteepestDescent, steepest_reference, settings, "quadratic")


@pytest.mark.parametrize(
    ("solver", "settings"),
    [
        (Muon, {**COMMON, **MUON["usual"]}),
        (Muon, {**COMMON, **MUON["newton-schulz"]}),
        (SteepestDescent, {"lr": 0.05, "momentum": 0.5}),
    ],
)
def test_as_an_optimizer(solver, settings):
    check_resumes(solver, settings)
    check_bfloat16(solver, settings)
    check_missing_gradients(solver, settings)
    check_grad_scaler(solver, settings)


def descend(solver, count=12):
    """The last layers of 5-7-3 with tanh after some steps."""
    start, loss = network()
    thetas = [t.requires_grad_() for t in start]
    optimizer = solver(thetas)
    for k in range(count):
        optimizer.step(lambda k=k: loss(thetas, k))
    return torch.cat([t.detach().reshape(-1) for t in thetas])


def test_with_scions_unit_it_is_scion():
    """Weight decay is the ball: Scion's lr is lr decay, its radius 1 / decay. Vectors have the same norm."""
    same = {"nesterov": False, "momentum": 0.8, "norm": "rms"}
    for decay in (0.0, 0.5):

        def muon(thetas, decay=decay):
            groups = [{"params": [t], **({"norm": "auto"} if t.ndim > 1 else {})} for t in thetas]
            return Muon(groups, 0.02, scale="spectral", exact=True, weight_decay=decay, **same)

        def scion(thetas, decay=decay):
            ball = {"lr": 0.02 * decay, "scale": 1 / decay, "constrained": True} if decay else {"lr": 0.02}
            return Scion(thetas, momentum=0.2, exact=True, **ball)

        torch.testing.assert_close(descend(muon), descend(scion), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 4), (3, 8)])
@pytest.mark.parametrize(("scale", "name"), [("original", "original"), ("rms", "match_rms_adamw")])
def test_beside_torchs_own(shape, scale, name):
    """Which takes its Newton-Schulz steps in bfloat16: within 5 % of the length of each step."""
    start = normal(*shape).float()
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    one = Muon([ours], 0.1, scale=scale, momentum=0.9, weight_decay=0.2)
    other = torch.optim.Muon([theirs], 0.1, momentum=0.9, weight_decay=0.2, adjust_lr_fn=name)
    for k in range(10):
        before = theirs.detach().clone()
        ours.data.copy_(before)
        ours.grad = theirs.grad = normal(*shape, seed=k).float()
        one.step()
        other.step()
        assert float((ours - theirs).detach().norm()) < 0.05 * float((theirs.detach() - before).norm())


def test_vectors_are_adamws():
    p = nn.Parameter(normal(5))
    q = nn.Parameter(p.detach().clone())
    settings = {"weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-6}
    ours, theirs = Muon([p], 0.1, adam_lr=0.5, **settings), torch.optim.AdamW([q], 0.05, **settings)
    for k in range(20):
        p.grad = q.grad = normal(5, seed=k)
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_in_the_euclidean_norm_it_is_gradient_descent_and_signs_have_the_l1_norm():
    first = descend(lambda t: SteepestDescent(t, 0.3, norm="euclidean", weight_decay=0.1))
    torch.testing.assert_close(first, descend(lambda t: SGD(t, 0.3, weight_decay=0.1, decoupled=True)))
    p = nn.Parameter(torch.zeros(3))
    SteepestDescent([p], 0.1, norm="sign").step(lambda: (p * torch.tensor([1.0, -2.0, 4.0])).sum())
    torch.testing.assert_close(p.detach(), torch.tensor([-0.7, 0.7, -0.7]))


@pytest.mark.parametrize("kind", ["muon", "steepest", "adam"])
def test_turning_the_parameter_turns_the_way(kind):
    """f(U W V^T) from U^T W_0 V goes the same way, turned: Adam's does not."""
    make = {
        "muon": lambda p: Muon(p, 0.05, exact=True),
        "steepest": lambda p: SteepestDescent(p, 0.02, momentum=0.5),
        "adam": lambda p: Muon(p, 0.05, norm="adam", adam_lr=1.0),
    }[kind]
    U, V = (torch.linalg.qr(normal(k, k))[0] for k in (3, 4))
    A, start = normal(3, 4, seed=1).abs() + 0.5, normal(3, 4, seed=2)
    ends = []
    for left, right in ((torch.eye(3).double(), torch.eye(4).double()), (U, V)):
        W = nn.Parameter(left.T @ start @ right)
        solver = make([W])
        for _ in range(15):
            solver.step(lambda W=W, left=left, right=right: (A * (left @ W @ right.T) ** 2).sum())
        ends.append(left @ W.detach() @ right.T)
    away = float((ends[0] - ends[1]).norm())
    assert away > 0.05 if kind == "adam" else away < 1e-9


def test_the_descent_of_theory():
    """f = ||W - T||_F^2 / 2 has L = min(m, n) in the operator norm: f falls by ||g||_*^2 / (2 L) at least, and in one
    step to 0 where all singular values of W - T are alike."""
    T, W = normal(4, 3), nn.Parameter(normal(4, 3, seed=1))
    solver = SteepestDescent([W], 1 / 3)
    for _ in range(8):
        before = 0.5 * float((W.detach() - T).square().sum())
        promised = float(dual_norm(W.detach() - T, "operator")) ** 2 / 6
        solver.step(lambda: 0.5 * (W - T).square().sum())
        assert 0.5 * float((W.detach() - T).square().sum()) <= before - promised + 1e-12
    Q = torch.linalg.qr(normal(4, 3, seed=2))[0]
    W = nn.Parameter(T + 0.7 * Q)
    SteepestDescent([W], 1 / 3).step(lambda: 0.5 * (W - T).square().sum())
    torch.testing.assert_close(W.detach(), T)


def test_convolutions_are_matrices_of_their_patches():
    K = nn.Parameter(normal(4, 2, 3, 3))
    before = K.detach().clone()
    Muon([K], 0.1, exact=True, weight_decay=0.0, scale="rms").step(lambda: (K * normal(4, 2, 3, 3, seed=1)).sum())
    values = torch.linalg.svdvals((K.detach() - before).reshape(4, 18))
    torch.testing.assert_close(values, torch.full((4,), 0.1 * 0.2 * math.sqrt(18)).double())


def test_groups_of_a_model():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.middle, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    hidden, rest = muon_groups(model)
    assert [id(p) for p in hidden["params"]] == [id(model.middle.weight)]
    assert {id(p) for p in rest["params"]} == {id(model.middle.bias), id(model.embedding.weight)}
    plain = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 2))
    assert len(muon_groups(plain)[0]["params"]) == 2
    assert len(muon_groups(plain, head="2")[0]["params"]) == 2
    assert id(plain[3].weight) in {id(p) for p in muon_groups(plain, head="2")[0]["params"]}
    with pytest.raises(ValueError, match="no layer 'lm_head'"):
        muon_groups(plain, head="lm_head")
    solver = Muon(muon_groups(plain))
    solver.step(lambda: plain(torch.ones(1, 2, 3)).square().sum())
    assert "square" in solver.state[plain[3].weight]
    assert "square" not in solver.state[plain[0].weight]


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (Muon, {"lr": -0.1}, "lr=-0.1"),
        (Muon, {"momentum": 1.0}, "momentum=1.0"),
        (Muon, {"weight_decay": -1.0}, "weight_decay=-1.0"),
        (Muon, {"scale": "big"}, "scale='big'"),
        (Muon, {"adam_lr": -1.0}, "adam_lr=-1.0"),
        (Muon, {"betas": (0.9, 1.0)}, "betas="),
        (Muon, {"eps": 0.0}, "eps=0.0"),
        (Muon, {"norm": "nuclear"}, "norm is 'auto' or one of"),
        (Muon, {"norm": "operator"}, "norm='operator' needs matrices"),
        (SteepestDescent, {"lr": -0.1}, "lr=-0.1"),
        (SteepestDescent, {"lr": 0.1, "momentum": 1.0}, "momentum=1.0"),
        (SteepestDescent, {"lr": 0.1, "norm": "row"}, "norm='row' needs matrices"),
    ],
)
def test_bad_settings(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind([torch.zeros(3, requires_grad=True)], **settings)
