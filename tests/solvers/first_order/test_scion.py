"""Norms of layers with their duals; Scion against references and in its ball."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rule_cases import (
    check_beside_reference,
    check_bfloat16,
    check_grad_scaler,
    check_missing_gradients,
    check_resumes,
    spread,
)
from torch import nn
from torch.nn import functional as F

from landscape.norms import KINDS, dual_norm, newton_schulz, norm, polar_factor, steepest
from solvers.first_order.scion import Scion

SHAPES = {"tall": (9, 4), "wide": (3, 8), "square": (5, 5), "conv": (6, 3, 3, 2), "conv1d": (4, 5, 3), "row": (1, 7)}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# -- norms, by numpy and their definitions ----------------------------------------------------------------------------


def norm_reference(w, kind):
    """The definitions of arXiv 2502.07529, for numpy arrays."""
    out = w.shape[0]
    m = w.reshape(out, -1) if w.ndim > 1 else w.reshape(-1, 1)
    if kind in ("spectral", "operator"):
        factor = math.sqrt(w.shape[1] / out) * np.prod(w.shape[2:]) if kind == "spectral" else 1.0
        return factor * np.linalg.svd(m, compute_uv=False)[0]
    if kind == "sign":
        return m.shape[1] * np.abs(m).max()
    if kind == "column":
        return max(math.sqrt(np.mean(c**2)) for c in m.T)
    if kind == "row":
        return max(math.sqrt(m.shape[1]) * np.linalg.norm(r) for r in m)
    return np.linalg.norm(m) if kind == "euclidean" else math.sqrt(np.mean(m**2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", list(SHAPES))
def test_norms_and_duals(kind, shape):
    """<G, N(G)> = ||G||_dual with ||N(G)|| = 1, and no other point of the ball does better."""
    G, W = normal(*SHAPES[shape]), normal(*SHAPES[shape], seed=1)
    assert float(norm(W, kind)) == pytest.approx(norm_reference(W.numpy(), kind), rel=1e-12)
    Z = steepest(G, kind)
    dual = float(dual_norm(G, kind))
    assert Z.shape == G.shape
    assert float(norm(Z, kind)) == pytest.approx(1.0, rel=1e-12)
    assert float((G * Z).sum()) == pytest.approx(dual, rel=1e-12)
    for seed in range(2, 30):
        other = normal(*SHAPES[shape], seed=seed)
        other = 0.7 * Z + 0.3 * other if seed % 2 else other
        assert float((G * other).sum()) <= dual * float(norm(other, kind)) * (1 + 1e-12)
    for factor in (-2.0, 1e-3):
        assert float(norm(factor * W, kind)) == pytest.approx(abs(factor) * float(norm(W, kind)), rel=1e-12)


@pytest.mark.parametrize("shape", [(5,), ()])
@pytest.mark.parametrize("kind", ["auto", "rms", "sign", "euclidean"])
def test_vectors(kind, shape):
    g = normal(*shape, seed=3)
    Z = steepest(g, kind)
    assert Z.shape == g.shape
    assert float(norm(Z, kind)) == pytest.approx(1.0)
    assert float((g * Z).sum()) == pytest.approx(float(dual_norm(g, kind)))
    factor = {"euclidean": 1.0}.get(kind, math.sqrt(g.numel()))
    expected = float(g.abs().sum()) if kind == "sign" else factor * float(g.norm())
    assert float(dual_norm(g, kind)) == pytest.approx(expected)


def test_numbers_by_hand():
    W = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], dtype=torch.float64)  # out 3, in 2
    found = {kind: (float(norm(W, kind)), float(dual_norm(W, kind))) for kind in KINDS}
    r = math.sqrt(3 / 2)
    assert found["spectral"] == pytest.approx((4 / r, 7 * r))
    assert found["operator"] == pytest.approx((4.0, 7.0))
    assert found["sign"] == pytest.approx((8.0, 3.5))
    assert found["euclidean"] == pytest.approx((5.0, 5.0))
    assert found["rms"] == pytest.approx((5 / math.sqrt(6), 5 * math.sqrt(6)))
    assert found["column"] == pytest.approx((4 / math.sqrt(3), 7 * math.sqrt(3)))
    assert found["row"] == pytest.approx((4 * math.sqrt(2), 7 / math.sqrt(2)))
    conv = steepest(normal(8, 2, 3, 3), "auto")  # sqrt(8 / 2) / 9 times orthogonal columns or rows
    values = np.linalg.svd(conv.reshape(8, 18).numpy(), compute_uv=False)
    np.testing.assert_allclose(values, 2 / 9)


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
@pytest.mark.parametrize("polar", [polar_factor, newton_schulz])
def test_zero_gradients_go_nowhere(kind, polar):
    for shape in ((4, 3), (3, 4), (0, 3)):
        Z = steepest(torch.zeros(shape), kind, polar)
        assert Z.shape == shape
        assert not Z.any()
    half = torch.zeros(4, 3)
    half[1, 2] = -1e-12
    Z = steepest(half, kind, polar)
    assert bool(torch.isfinite(Z).all())
    assert int((Z != 0).sum()) == 1
    assert float(Z[1, 2]) < 0


def test_polar_factors():
    """Exact: U V^T by numpy, of rank 2 too. Newton-Schulz: the same spaces, singular values in [0.68, 1.21]."""
    for shape in ((9, 4), (4, 9), (30, 30)):
        G = normal(*shape)
        U, S, Vh = np.linalg.svd(G.numpy(), full_matrices=False)
        np.testing.assert_allclose(polar_factor(G).numpy(), U @ Vh, atol=1e-12)
        X = newton_schulz(G).numpy()
        inner = U.T @ X @ Vh.T
        kept = S / np.linalg.norm(S) > 0.003
        assert kept.sum() >= min(shape) - 1
        np.testing.assert_allclose(inner - np.diag(np.diag(inner)), 0, atol=1e-12)
        assert (np.diag(inner)[kept] > 0.68).all()
        assert (np.diag(inner) < 1.21).all()
        for factor in (1e-18, 1e18):
            np.testing.assert_allclose(newton_schulz(factor * G), X, rtol=1e-6, atol=1e-9)
    low = normal(6, 2) @ normal(2, 5, seed=1)
    U, S, Vh = np.linalg.svd(low.numpy())
    np.testing.assert_allclose(polar_factor(low).numpy(), U[:, :2] @ Vh[:2], atol=1e-10)
    assert newton_schulz(normal(4, 3, dtype=torch.bfloat16)).dtype == torch.float32
    assert newton_schulz(normal(4, 3)).dtype == torch.float64


def test_newton_schulz_in_bfloat16():
    """As an accelerator does it: singular values within 3 % of those in float64."""
    for shape in ((64, 64), (30, 90), (90, 30)):
        G = normal(*shape)
        low = newton_schulz(G, dtype=torch.bfloat16)
        assert low.dtype == torch.bfloat16
        values = torch.linalg.svdvals(newton_schulz(G))
        assert float((torch.linalg.svdvals(low.double()) - values).abs().max()) < 0.03
        assert float((low.double() - newton_schulz(G)).norm() / values.norm()) < 0.02


def test_bad_norms():
    for call in (norm, dual_norm, steepest):
        with pytest.raises(ValueError, match=r"norm is 'auto' or one of spectral, sign, .*, not 'nuclear'"):
            call(torch.ones(2, 2), "nuclear")
        with pytest.raises(ValueError, match=r"norm='spectral' needs matrices, not the shape \(3,\)"):
            call(torch.ones(3), "spectral")


# -- the solver -------------------------------------------------------------------------------------------------------


def lmo(d, kind, exact):
    """N(d) in plain steps."""
    m = d.reshape(len(d), -1)
    if d.ndim == 1 or kind == "rms":
        return d.sign() if kind == "sign" else d / d.square().mean().sqrt()
    if kind == "sign":
        return d.sign() / m.shape[1]
    if kind == "euclidean":
        return d / d.norm()
    if exact:
        U, S, Vh = torch.linalg.svd(m, full_matrices=False)
        r = int((S / S[0] > 1e-12).sum())  # the rows of a softmax layer's gradient sum to 0
        return (U[:, :r] @ Vh[:r]).reshape(d.shape) * math.sqrt(d.shape[0] / d.shape[1]) / math.prod(d.shape[2:])
    X = m / m.norm()
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.reshape(d.shape) * math.sqrt(d.shape[0] / d.shape[1]) / math.prod(d.shape[2:])


CASES = {
    "scion": {"norm": "auto", "constrained": False, "exact": True},
    "scion-ns": {"norm": "auto", "constrained": False, "exact": False},
    "scion-constrained": {"norm": "auto", "constrained": True, "exact": True},
    "scion-sign": {"norm": "sign", "constrained": True, "exact": False},
    "scion-rms": {"norm": "rms", "constrained": False, "exact": False},
}
COMMON = {"lr": 0.01, "momentum": 0.2, "scale": 3.0}


def scion_reference(thetas, gradients, loss, state, settings):
    means = state.setdefault("means", [torch.zeros_like(t) for t in thetas])
    for i, (t, g, s) in enumerate(zip(thetas, gradients, settings, strict=True)):
        means[i] = (1 - s["momentum"]) * means[i] + s["momentum"] * g
        keep = 1 - s["lr"] if s["constrained"] else 1.0
        thetas[i] = keep * t - s["lr"] * s["scale"] * lmo(means[i], s["norm"], s["exact"])
    return thetas


@pytest.mark.parametrize(("name", "problem"), spread(CASES))
def test_the_update_is_the_documented_one(name, problem):
    check_beside_reference(Scion, scion_reference, {**COMMON, **CASES[name]}, problem, largest=1e-9)


@pytest.mark.parametrize("name", list(CASES))
def test_as_an_optimizer(name):
    settings = {**COMMON, **CASES[name]}
    check_resumes(Scion, settings)
    check_bfloat16(Scion, {**settings, "scale": 0.5})
    check_missing_gradients(Scion, settings)
    check_grad_scaler(Scion, settings)


@pytest.mark.parametrize("kind", KINDS)
def test_constrained_iterates_stay_in_the_ball(kind):
    """From inside they stay, from outside the excess shrinks by 1 - lr a step; with Newton-Schulz at 1.21 scale."""
    lr, scale = 0.1, 2.0
    for exact, radius in ((True, scale), (False, 1.21 * scale)):
        for factor in (0.5, 5.0):
            W = normal(6, 4)
            W = (W / norm(W, kind) * scale * factor).requires_grad_()
            optimizer = Scion([W], lr, scale=scale, norm=kind, constrained=True, exact=exact)
            excess = max(float(norm(W.detach(), kind)) - radius, 0.0)
            for k in range(60):
                optimizer.step(lambda W=W, k=k: (W * (100 * normal(6, 4, seed=k // 20))).sum())
                excess *= 1 - lr
                assert float(norm(W.detach(), kind)) <= radius + excess + 1e-12
            if exact and kind not in ("euclidean", "rms"):
                assert float(norm(W.detach(), kind)) > 0.8 * scale  # and the ball is what holds them


def test_an_unconstrained_step_moves_each_layer_by_lr_times_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 5)).double()
    before = [p.detach().clone() for p in model.parameters()]
    groups = [
        {"params": model[0].parameters()},
        {"params": [model[2].weight], "norm": "sign", "scale": 7.0},
        {"params": [model[2].bias], "lr": 0.5},
    ]
    optimizer = Scion(groups, 0.1, scale=3.0, exact=True)
    x, y = normal(6, 1, 4, 4), torch.arange(6) % 5
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    lengths = [float(norm(m, "sign" if i == 2 else "auto")) for i, m in enumerate(moved)]
    assert lengths == pytest.approx([0.3, 0.3, 0.7, 1.5], rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -0.1}, "lr=-0.1"),
        ({"lr": 1.5, "constrained": True}, "lr=1.5"),
        ({"lr": 0.1, "momentum": 0.0}, "momentum=0.0"),
        ({"lr": 0.1, "momentum": 1.1}, "momentum=1.1"),
        ({"lr": 0.1, "scale": 0.0}, "scale=0.0"),
        ({"lr": 0.1, "norm": "nuclear"}, "norm is 'auto' or one of"),
        ({"lr": 0.1, "norm": "column"}, "norm='column' needs matrices"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Scion([torch.zeros(3, requires_grad=True)], **settings)


def test_a_bad_group_is_not_added():
    optimizer = Scion([torch.zeros(3, requires_grad=True)], 1.5)
    with pytest.raises(ValueError, match="scale=-1"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], "scale": -1})
    assert len(optimizer.param_groups) == 1
