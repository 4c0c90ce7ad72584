"""Linear models against autograd, and what they need beside the data."""

import math
from typing import get_args

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from solvers import RSRNM, SSCN, CoordinateDescent, NonConvex, Ridge, linear_model
from solvers.second_order.margin_losses import Loss

CASES = [(loss, NonConvex(0.2, 1.5)) for loss in get_args(Loss)] + [("logistic", None), ("log-sum-exp", Ridge(0.3))]


@pytest.mark.parametrize(("loss", "regulariser"), CASES)
def test_blocks_are_those_of_autograd(loss, regulariser):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(1500, 8, generator=generator).double()
    y = torch.randint(0, 2, (1500,), generator=generator).double()
    start = torch.randn(8, generator=generator).double()
    model = linear_model(X, y, loss, regulariser, start=start, mu=0.7)
    f = lambda w: torch.func.functional_call(Wrapped(model), {"weight": w}, ())  # noqa: E731
    w = model.weight.detach().clone()
    S = torch.tensor([1, 4, 5])
    assert model.value() == pytest.approx(float(model().detach()), rel=1e-13)
    g, H = model.blocks(S)
    torch.testing.assert_close(g, torch.func.grad(f)(w)[S], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(H, torch.func.hessian(f)(w)[S][:, S], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(model.gradient(S), g, rtol=1e-12, atol=1e-14)
    V = torch.randn(8, 3, generator=generator).double()
    torch.testing.assert_close(model.product(V), torch.func.hessian(f)(w) @ V, rtol=1e-10, atol=1e-13)
    h = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    there = w.clone()
    there[S] += h
    assert model.trial(S, h) == pytest.approx(float(f(there)), rel=1e-13)
    torch.testing.assert_close(model.trial_gradient(), torch.func.grad(f)(there)[S], rtol=1e-10, atol=1e-13)
    assert torch.equal(model.weight.detach(), w)
    model.move()
    assert torch.equal(model.weight.detach(), there)
    assert model.value() == pytest.approx(float(f(there)), rel=1e-13)
    with torch.no_grad():
        model.weight.mul_(0.5)  # by somebody else
    assert model.value() == pytest.approx(float(f(0.5 * there)), rel=1e-13)


class Wrapped(nn.Module):
    """The model's closure with the weight in a place that functional_call can exchange."""

    def __init__(self, model):
        super().__init__()
        self.weight = nn.Parameter(model.weight.detach().clone())
        self.model = [model]

    def forward(self):
        model = self.model[0]
        value = model._of_margins(model._margins(self.weight))
        return value if model._regulariser is None else value + model._regulariser.value(self.weight).sum()


@pytest.mark.parametrize("solver", [SSCN, CoordinateDescent, RSRNM])
def test_the_same_steps_with_margins_kept_anew_and_by_the_graph(solver):
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(60, 12, generator=generator).double(), torch.randint(0, 2, (60,), generator=generator)
    ends = []
    for way in ("kept", "anew", "graph"):
        model = linear_model(X, y, "logistic", NonConvex(0.1), start=torch.ones(12), keep_margins=way == "kept")
        made = solver([model.weight], 5, generator=torch.Generator().manual_seed(3))
        for _ in range(12):
            made.step(model.__call__ if way == "graph" else model)
        ends.append(model.weight.detach())
        assert made.last.products == (0 if solver is not RSRNM and way != "graph" else made.last.products)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(3, 2), torch.ones(4)), r"X must be \(N, n\)"),
        ((torch.ones(3, 2), torch.tensor([0.0, 1.0, 2.0])), "0 and 1"),
        ((torch.full((3, 2), math.nan), torch.ones(3)), "not finite"),
        ((torch.ones(3, 2), torch.ones(3), "hinge"), "loss is one of"),
    ],
)
def test_bad_data(arguments, words):
    with pytest.raises(ValueError, match=words):
        linear_model(*arguments)


class _Largest(TorchDispatchMode):
    """The most entries of a tensor that an operation returned."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.entries = max(self.entries, out.numel())
        return out


@pytest.mark.parametrize(("samples", "tau"), [(5000, 40), (20000, 40), (20000, 160)])
def test_what_a_step_needs_beside_the_data(samples, tau):
    """Not the features of the subset for all samples, `(samples, tau)`, but pieces of them."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(samples, 200, generator=generator, dtype=torch.float64)
    model = linear_model(X, (X[:, 0] > 0).double(), "logistic", NonConvex(0.1))
    solver = SSCN([model.weight], tau, rule="doubling", generator=generator)
    solver.step(model)
    with _Largest() as seen:
        for _ in range(3):
            solver.step(model)
    assert solver.last.accepted
    assert seen.entries <= max(1024 * tau, tau**2, samples)
