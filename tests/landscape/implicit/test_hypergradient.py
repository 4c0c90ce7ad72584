"""Hypergradients against a closed form, and against differences of inner problems that are solved anew."""

from __future__ import annotations

import pytest
import torch
from implicit_cases import classes, minimise
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import KFAC, Objective
from landscape.implicit import hypergradient


def ridge():
    """theta(h) = (X^T D X / m + diag(exp(h)))^-1 X^T D y / m, with D the weights of the samples."""
    g = torch.Generator().manual_seed(0)
    X, y = torch.randn(20, 3, generator=g).double(), torch.randn(20, 1, generator=g).double()
    V, z = torch.randn(9, 3, generator=g).double(), torch.randn(9, 1, generator=g).double()

    def theta(h: Tensor, weights: Tensor) -> Tensor:
        XD = X * weights[:, None]
        return torch.linalg.solve(XD.T @ X / 20 + torch.diag(h.exp()), XD.T @ y / 20)

    return X, y, V, z, theta


def test_ridge_regression_with_a_decay_for_each_parameter_and_a_weight_for_each_sample():
    X, y, V, z, theta = ridge()
    h = torch.tensor([-2.0, -1.0, -3.0], dtype=torch.float64, requires_grad=True)
    weights = (torch.rand(20, generator=torch.Generator().manual_seed(1)).double() + 0.5).requires_grad_(True)
    expected = torch.autograd.grad(F.mse_loss(V @ theta(h, weights), z), (h, weights))
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(theta(h, weights).T)

    def inner_loss(out, target):
        return (weights * (out - target).square()[:, 0]).mean() + (h.exp() * model.weight[0].square()).sum()

    inner, outer = Objective(model, inner_loss, (X, y)), Objective(model, nn.MSELoss(), (V, z))
    found = hypergradient(outer, inner, [h, weights], tol=1e-10)
    for one, true in zip(found.gradients, expected, strict=True):
        torch.testing.assert_close(one, true, rtol=1e-8, atol=1e-10)
    assert found.converged
    assert found.gradient_norm < 1e-10
    assert found.value == pytest.approx(float(F.mse_loss(V @ theta(h, weights), z).detach()))
    assert [t.grad for t in (h, weights, model.weight)] == [None] * 3
    # a loose solve errs by about what it says
    loose = hypergradient(outer, inner, [h, weights], tol=0.3)
    wrong = torch.cat([one - true for one, true in zip(loose.gradients, expected, strict=True)])
    assert float(wrong.norm()) > 1e-4 * float(torch.cat(expected).norm())
    assert float(wrong.norm()) < 2 * float(torch.cat(loose.errors).norm())


@pytest.mark.parametrize("sizes", [(24,), (10, 10, 4)])
def test_differences_of_inner_problems_that_are_solved_anew(sizes):
    """A network of two layers; the temperature is in both losses, the decay in the inner one."""
    X, y = classes(24)
    Z, t = classes(10, seed=1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()

    def solved(values):
        decay, heat = values
        loss = lambda forward, v: F.cross_entropy(forward(X) * heat.exp(), y) + decay.exp() / 2 * v @ v  # noqa: E731
        minimise(model, loss)
        with torch.no_grad():
            return float(F.cross_entropy(model(Z) * heat.exp(), t))

    h = torch.tensor([-3.0, 0.2], dtype=torch.float64)
    solved(h)
    differences = []
    for i in range(2):
        step = torch.zeros(2).double()
        step[i] = 1e-4
        ahead, behind = solved(h + step), solved(h - step)
        differences.append((ahead - behind) / 2e-4)
        solved(h)
    decay, heat = (one.clone().requires_grad_(True) for one in h)

    def inner_loss(out, target):
        penalty = sum(p.square().sum() for p in model.parameters())
        return F.cross_entropy(out * heat.exp(), target) + decay.exp() / 2 * penalty

    batches = list(zip(X.split(sizes), y.split(sizes), strict=True))
    inner = Objective(model, inner_loss, batches)
    outer = Objective(model, lambda out, target: F.cross_entropy(out * heat.exp(), target), (Z, t))
    found = hypergradient(outer, inner, [decay, heat], tol=1e-9)
    assert found.gradient_norm < 1e-8
    assert [float(one) for one in found.gradients] == pytest.approx(differences, rel=1e-4)
    assert "not positive definite" not in str(found)
    # an approximate matrix gives an approximate one
    kept = Objective(model, nn.CrossEntropyLoss(), batches)
    near = hypergradient(outer, inner, decay, operator=KFAC(kept), damping=float(decay.detach().exp()))
    assert (near.matvecs, near.residual) == (0, 0.0)
    assert torch.sign(near.gradients[0]) == torch.sign(found.gradients[0])


def test_refusals():
    X, y, V, z, _ = ridge()
    model, h = nn.Linear(3, 1).double(), torch.tensor(0.1, requires_grad=True)
    plain, other = Objective(model, nn.MSELoss(), (X, y)), Objective(model, nn.MSELoss(), (V, z))
    with pytest.raises(ValueError, match="neither loss depends on hyperparameter 0"):
        hypergradient(other, plain, h)
    for wrong in (torch.tensor(0.1), [], h * 2):
        with pytest.raises(ValueError, match="tensors that require grad"):
            hypergradient(other, plain, wrong)
    with pytest.raises(ValueError, match="different parameters"):
        hypergradient(other.restrict("bias"), plain, h)
