"""Problems for Newton-type solvers, with f, g and H in numpy, and what their plain references share."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from solvers import NonConvex, linear_model


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


class Functions:
    """f(w) and g(w) beside (f, g, H) by calling it."""

    def __init__(self, fgh, f=None, g=None):
        self.fgh = fgh
        self.f = f or (lambda w: fgh(w)[0])
        self.g = g or (lambda w: fgh(w)[1])

    def __call__(self, w):
        return self.fgh(w)


@dataclass
class Problem:
    parameters: list
    closure: Any
    fgh: Functions

    def flat(self):
        return torch.cat([p.detach().reshape(-1) for p in self.parameters]).numpy().copy()


def logistic(weight=0.1, n=12, samples=40, seed=0):
    """Logistic regression with the non-convex regulariser; its Hessian is indefinite at the start."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(samples, n, generator=generator, dtype=torch.float64)
    y = (torch.rand(samples, generator=generator) < 0.5).double()
    model = linear_model(X, y, "logistic", NonConvex(weight), start=torch.rand(n, generator=generator))
    A, t = X.numpy(), y.numpy()

    def fgh(w):
        p = 1 / (1 + np.exp(-A @ w))
        f = np.mean(np.logaddexp(0, A @ w) - t * (A @ w)) + weight * np.sum(w**2 / (1 + w**2))
        g = A.T @ (p - t) / len(t) + weight * 2 * w / (1 + w**2) ** 2
        H = (A.T * (p * (1 - p))) @ A / len(t) + np.diag(weight * (2 - 6 * w**2) / (1 + w**2) ** 3)
        return f, g, H

    return Problem([model.weight], model, Functions(fgh))


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(30, 2, generator=generator).double(), torch.randint(0, 2, (30,), generator=generator)
    names, sizes = zip(*[(name, p.shape) for name, p in model.named_parameters()], strict=True)

    def loss(flat):
        pieces = flat.split([s.numel() for s in sizes])
        named = {name: piece.reshape(s) for name, piece, s in zip(names, pieces, sizes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, named, (X,)), y)

    f = lambda w: float(loss(torch.tensor(w)))  # noqa: E731
    g = lambda w: torch.func.grad(loss)(torch.tensor(w)).numpy()  # noqa: E731
    fgh = lambda w: (f(w), g(w), torch.func.hessian(loss)(torch.tensor(w)).numpy())  # noqa: E731
    problem = Problem(list(model.parameters()), lambda: F.cross_entropy(model(X), y), Functions(fgh, f, g))
    problem.objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    return problem


def quadratic(n=6, lowest=0.5):
    generator = torch.Generator().manual_seed(3)
    U = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    A = (U * torch.linspace(lowest, 3.0, n, dtype=torch.float64)) @ U.T
    b = torch.randn(n, generator=generator, dtype=torch.float64)
    p = nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64))
    M, v = A.numpy(), b.numpy()
    fgh = lambda w: (0.5 * w @ M @ w - v @ w, M @ w - v, M)  # noqa: E731
    return Problem([p], lambda: 0.5 * p @ (A @ p) - b @ p, Functions(fgh))


def double_well(x=0.3, y=1e-4):
    """x^2 - y^2 + y^4: a saddle at 0, minima -1/4 at y = +-1/sqrt(2)."""
    p = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))
    return p, lambda: p[0] ** 2 - p[1] ** 2 + p[1] ** 4


PROBLEMS = {"logistic": logistic, "network": network, "quadratic": quadratic}


# -- references, from the formulas: each yields the point and the constant after a step -------------------------------


def cubic_step(g, H, M):
    """By a bracketed search for lam = (M / 2) ||(H + lam)^(-1) g||, g not orthogonal to the lowest eigenvector."""
    eye, low = np.eye(len(g)), max(0.0, -np.linalg.eigvalsh(H)[0])
    step = lambda lam: -np.linalg.solve(H + lam * eye, g)  # noqa: E731
    excess = lambda lam: np.linalg.norm(step(lam)) - 2 * lam / M  # noqa: E731
    high = low + math.sqrt(M * np.linalg.norm(g)) + 1e-12
    lam = brentq(excess, low + 1e-9 * (high - low), high, xtol=1e-15, rtol=1e-14)
    h = step(lam)
    return h, -(g @ h + 0.5 * h @ H @ h + M / 6 * np.linalg.norm(h) ** 3)


def by_rule(rule, f, fgh, w, constant, propose):
    """The rules of SSCN for a step `propose(constant) -> (h, decrease)`."""
    while True:
        h, decrease = propose(constant)
        new = fgh.f(w + h)
        if rule == "fixed":
            return w + h, constant
        if rule == "ratio":
            ratio = (f - new) / decrease
            taken = ratio >= 0.05 and new <= f
            constant *= 0.5 if ratio >= 0.9 else 1.0 if ratio >= 0.05 else 1.5
            return (w + h if taken else w), constant
        if f - new >= decrease:
            return w + h, constant / 2
        constant *= 2


def cubic_reference(fgh, w, M, rule, period=1):
    for k in range(10**6):
        f, g, fresh = fgh(w)
        H = fresh if k % period == 0 else H  # noqa: F821
        w, M = by_rule(rule, f, fgh, w, M, lambda M, g=g, H=H: cubic_step(g, H, M))
        yield w, M


def regularised_step(g, H, lam):
    lam += max(0.0, -np.linalg.eigvalsh(H)[0])
    return -np.linalg.solve(H + lam * np.eye(len(g)), g), lam


def check_step_by_step(make, reference, name, *, rel=1e-6, fresh=True):
    """A solver against its reference; rel: accuracy of the constant; fresh: each step has a new Hessian."""
    problem = PROBLEMS[name]()
    solver, path = make(problem.parameters), reference(problem.fgh, problem.flat())
    (key,) = [key for key in solver.param_groups[0] if key in ("M", "damping", "H", "gamma", "L", "step")]
    compared = 0
    for _ in range(5 if name == "network" else 9):
        f, g, H = problem.fgh(problem.flat())
        if np.linalg.norm(g) < 1e-7:
            break
        loss = solver.step(problem.closure)
        last = solver.last
        assert float(loss) == last.loss == pytest.approx(f, rel=1e-12)
        if last.decrease < 1e-9:  # from here on rounding decides about some trial points
            break
        w, constant = next(path)
        np.testing.assert_allclose(problem.flat(), w, rtol=1e-6, atol=1e-7)
        assert solver.param_groups[0][key] == pytest.approx(constant, rel=rel)
        assert last.new_loss == pytest.approx(problem.fgh.f(w), rel=1e-6) or not last.accepted
        if last.size == len(g) and fresh and not math.isnan(last.lowest):
            assert last.lowest == pytest.approx(np.linalg.eigvalsh(H)[0], abs=1e-9)
        compared += 1
    assert compared >= 4 or name == "quadratic"
    assert all(p.grad is None for p in problem.parameters)
