"""The error of the model's own arithmetic is measured where it happens, and every bound holds the truth with it."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from landscape import GaussNewton, Hessian, Objective
from landscape.spectra import eigsh

DOUBLE = torch.float64


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 4))


def data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 6, generator=generator).to(dtype), torch.randint(0, 4, (40,), generator=generator)


class Autocast(nn.Module):
    """Half precision that no parameter shows."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x).float()


class Inside(nn.Module):
    """A model in one dtype that computes in another."""

    def __init__(self, net, dtype):
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, x):
        weights = {name: p.to(self.dtype) for name, p in self.net.named_parameters()}
        return functional_call(self.net, weights, x.to(self.dtype)).to(x.dtype)


class HalfInside(torch.autograd.Function):
    """No dtype in the graph tells that this rounds."""

    @staticmethod
    def forward(ctx, x):
        return x.half().to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        return g.half().to(g.dtype)


class HalfBehind(HalfInside):
    """Exact outputs, and derivatives that are not."""

    @staticmethod
    def forward(ctx, x):
        return 1.1 * x

    @staticmethod
    def backward(ctx, g):
        return (1.1 * g).half().to(g.dtype)


class ExactInside(HalfInside):
    """Nor that this does not."""

    @staticmethod
    def forward(ctx, x):
        return 1.1 * x

    @staticmethod
    def backward(ctx, g):
        return 1.1 * g


class Opaque(nn.Module):
    def __init__(self, net, function=HalfInside):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.function.apply(self.net(x))


COARSE = {  # the model, the dtype of its inputs, and the unit roundoff inside
    "bfloat16": (lambda n: n.bfloat16(), torch.bfloat16, 2**-9),
    "half": (lambda n: n.half(), torch.half, 2**-12),
    "autocast in forward": (Autocast, torch.float32, 2**-9),
    "half in forward": (lambda n: Inside(n, torch.half), torch.float32, 2**-12),
    "float32 in float64": (lambda n: Inside(n.double(), torch.float32), DOUBLE, 2**-25),
    "bfloat16 in float64": (lambda n: Inside(n.double(), torch.bfloat16), DOUBLE, 2**-9),
}


@pytest.mark.parametrize(("make", "dtype", "unit"), COARSE.values(), ids=COARSE.keys())
@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_noise_is_what_products_err_by_and_bounds_hold_with_it(make, dtype, unit, kind):
    for seed in range(3):
        model = make(net(seed))
        A = kind(Objective(model, nn.CrossEntropyLoss(), data(dtype)))
        exact = copy.deepcopy(model.net if hasattr(model, "net") else model).double()
        B = kind(Objective(exact, nn.CrossEntropyLoss(), (data(dtype)[0].double(), data()[1])))
        true = eigsh(B, k=1, tol=1e-10)
        u = true.vectors[:, 0]
        error = float(((A @ u.to(A.dtype)).double() - B @ u).norm() / true.values[0].abs())
        assert 0.2 * error < A.noise < 20 * error
        assert 0.5 * unit < A.noise < 50 * unit
        found = eigsh(A, k=1, tol=1e-6)
        assert abs(float(found.values[0] - true.values[0])) <= float(found.residuals[0])


EXACT = {
    "float32": lambda: Objective(net(), nn.CrossEntropyLoss(), data()),
    "float64": lambda: Objective(net().double(), nn.CrossEntropyLoss(), data(DOUBLE)),
    "converted": lambda: Objective(net(), nn.CrossEntropyLoss(), data(), dtype=DOUBLE),
    "under autocast from outside": lambda: Objective(net(), nn.CrossEntropyLoss(), data()),
    "a function of one's own": lambda: Objective(Opaque(net(), ExactInside), nn.CrossEntropyLoss(), data()),
    "dropout": lambda: Objective(nn.Sequential(net(), nn.Dropout(0.5)), nn.CrossEntropyLoss(), data()),
}


@pytest.mark.parametrize("case", EXACT)
def test_exact_arithmetic_has_none(case):
    with torch.autocast("cpu", torch.bfloat16, enabled="outside" in case):
        assert EXACT[case]().noise == 0.0


def test_batch_statistics_enlarge_roundings_and_no_more():
    """By 16, which count as none, or by 20: processors differ."""
    model = nn.Sequential(net(), nn.BatchNorm1d(4))
    assert Objective(model, nn.CrossEntropyLoss(), data()).noise < 64 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("function", [HalfInside, HalfBehind])
def test_a_function_that_rounds_out_of_sight_is_measured(function):
    f = Objective(Opaque(net(), function), nn.CrossEntropyLoss(), data())
    assert 2**-13 < f.noise < 2**-9


def test_rounded_factors_are_looked_at_by_their_switch(monkeypatch):
    f = Objective(net(), nn.CrossEntropyLoss(), data())
    plain = F.linear
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")

    def rounded(t):  # as a kernel does that rounds the factors of a float32 product: no graph shows it
        return t + (t.bfloat16().float() - t).detach() if t.dtype == torch.float32 else t

    monkeypatch.setattr(F, "linear", lambda x, w, b: plain(rounded(x), rounded(w), b))
    assert 2**-11 < f.noise < 2**-5


class NoDouble(nn.Module):
    """A layer that knows one dtype only, as quantised ones do."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        if x.dtype == DOUBLE:
            raise RuntimeError("not implemented for 'Double'")
        return self.net(x)


def test_without_a_float64_copy_the_unit_of_the_coarsest_precision_counts():
    f = Objective(NoDouble(net().bfloat16()), nn.CrossEntropyLoss(), data(torch.bfloat16))
    assert 2**-9 < f.noise < 2**-5
    assert Objective(NoDouble(net()), nn.CrossEntropyLoss(), data()).noise == 0.0


class ByPlace(NoDouble):
    """Rounds a sample by its place in the batch, as a kernel does that sums in blocks."""

    def forward(self, x):
        return super().forward(x) * (1 + 1e-4 * torch.linspace(0, 1, len(x))[:, None])


def test_without_a_float64_copy_two_orders_of_the_batch_tell(monkeypatch):
    f = Objective(ByPlace(net()), nn.CrossEntropyLoss(), data())
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert 1e-5 < f.noise < 1e-3


def test_it_is_measured_once_for_each_model_as_it_is_built():
    model = Autocast(net())
    calls = []
    model.net[0].register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        noise = Objective(model, nn.CrossEntropyLoss(), data()).noise
        asked = len(calls)
    assert noise > 1e-3
    assert len(calls) == asked
    model.net[0].float().requires_grad_(False)
    assert Objective(model, nn.CrossEntropyLoss(), data()).noise > 0
    assert len(calls) > asked


def test_a_graph_made_under_autocast_knows_its_noise():
    model, (X, y) = net(), data()
    parameters = list(model.parameters())
    true = torch.linalg.eigvalsh(Hessian.from_loss(F.cross_entropy(model(X), y), parameters).to_dense().double())[-1]
    assert Hessian.from_loss(F.cross_entropy(model(X), y), parameters).noise == 0.0
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(X), y)
    A = Hessian.from_loss(loss, parameters)
    assert 1e-3 < A.noise < 2e-2
    found = eigsh(A, k=1, tol=1e-5)
    assert abs(float(found.values[0] - true)) < float(found.residuals[0])
    assert float(found.residuals[0]) >= A.noise * float(true)
