"""Outputs that are no tensor: Gauss-Newton, Fisher and tangent kernel of what the loss uses of them."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from objective_cases import network, objective, samples
from torch import nn
from torch.nn import functional as F

from landscape import EmpiricalFisher, FunctionalHessian, GaussNewton, Hessian, Objective, TangentKernel
from landscape.spectra import eigsh, trace


@dataclass
class Answer:
    hidden: torch.Tensor
    logits: torch.Tensor


Named = namedtuple("Named", "hidden logits")
KINDS = {
    "tuple": (lambda h, z: (h, z), lambda o: o[1]),
    "list": (lambda h, z: [h, z], lambda o: o[1]),
    "dict": (lambda h, z: {"hidden": h, "logits": z}, lambda o: o["logits"]),
    "dataclass": (Answer, lambda o: o.logits),
    "named tuple": (Named, lambda o: o.logits),
    "object": (lambda h, z: SimpleNamespace(hidden=h, logits=z), lambda o: o.logits),
    "nested": (lambda h, z: {"hidden": h, "out": [{"z": z}]}, lambda o: o["out"][0]["z"]),
}


class Wrapped(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.net, self.make = network(), make

    def forward(self, x):
        hidden = self.net[:3](x)
        return self.make(hidden, self.net[4](hidden))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensor_that_the_loss_uses_is_the_output(kind):
    make, read = KINDS[kind]
    X, y = samples()
    plain = objective(network(), [(X[:12], y[:12]), (X[12:], y[12:])], lambda o, t: F.cross_entropy(o, t))
    f = objective(Wrapped(make), [(X[:12], y[:12]), (X[12:], y[12:])], lambda o, t: F.cross_entropy(read(o), t))
    for matrix in (Hessian, GaussNewton, FunctionalHessian, EmpiricalFisher, TangentKernel):
        assert torch.allclose(matrix(f).to_dense(), matrix(plain).to_dense(), atol=1e-6), matrix
    for small in (64, "auto"):  # graphs that are built anew at every product, and kept ones
        limited = objective(Wrapped(make), (X, y), lambda o, t: F.cross_entropy(read(o), t), memory=small)
        v = torch.ones(f.size)
        assert torch.allclose(GaussNewton(limited) @ v, GaussNewton(plain) @ v, atol=1e-6)


def test_a_torch_loss_takes_the_logits():
    X, y = samples()
    for kind in ("dict", "dataclass", "object"):
        f = objective(Wrapped(KINDS[kind][0]), (X, y), nn.CrossEntropyLoss())
        assert f.value() == pytest.approx(objective().value(), rel=1e-6)
        assert torch.allclose(GaussNewton(f).to_dense(), GaussNewton(objective()).to_dense(), atol=1e-6)
        own = objective(Wrapped(KINDS[kind][0]), (X, y), lambda o, t: F.cross_entropy(o, t))
        assert own.value() == pytest.approx(f.value(), rel=1e-6)
    with pytest.raises(TypeError, match="forward="):
        objective(Wrapped(KINDS["tuple"][0]), (X, y), nn.CrossEntropyLoss()).value()


class Gaussian(nn.Module):
    """Mean and log-variance, as heteroscedastic regression and variational autoencoders have them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.mean, self.spread = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return {"mean": self.mean(h), "spread": self.spread(h), "unused": h.sum()}


def nll(o, y):
    return ((o["mean"] - y) ** 2 * torch.exp(-o["spread"]) + o["spread"]).mean()


def test_several_outputs_make_one_gauss_newton_matrix():
    """J^T B J with B over mean and spread together, by torch.func on the plain function."""
    X, _ = samples()
    y = X[:, :2].sin()
    model = Gaussian().double()
    f = Objective(model, nll, [(X.double(), y.double())])
    names = [n for n, _ in model.named_parameters()]

    def outputs(theta):
        out = torch.func.functional_call(model, f.unflatten(theta), (X.double(),))
        return torch.cat([out["mean"], out["spread"]], 1)

    def loss(z):
        return nll({"mean": z[:, :2], "spread": z[:, 2:]}, y.double())

    theta = f.theta()
    J = torch.func.jacrev(outputs)(theta).reshape(-1, f.size)
    z = outputs(theta)
    B = torch.autograd.functional.hessian(lambda flat: loss(flat.reshape(z.shape)), z.reshape(-1).detach())
    assert names == f.names
    assert torch.allclose(GaussNewton(f).to_dense(), J.T @ B @ J, atol=1e-10)
    assert torch.allclose(FunctionalHessian(f).to_dense(), Hessian(f).to_dense() - J.T @ B @ J, atol=1e-10)
    assert torch.allclose(TangentKernel(f).gram(), J @ J.T / 19, atol=1e-10)


class OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, y):
        return F.cross_entropy(self.net(x), y)


def test_a_loss_that_is_the_output_is_said_to_have_no_gauss_newton_matrix():
    X, y = samples()
    f = Objective(OwnLoss(), lambda loss, _: loss, {"x": X, "y": y})
    G = GaussNewton(f)
    assert float(trace(G).value) == 0.0
    assert float(eigsh(G, k=1).values[0]) == 0.0
    assert "zero by construction" in G.note
    assert Hessian(f).to_dense().norm() > 0
    likelihood = Objective(nn.Sequential(network(), nn.LogSoftmax(1)), nn.NLLLoss(), (X, y))
    G = GaussNewton(likelihood)
    assert float((G @ torch.ones(G.shape[0])).norm()) == 0.0
    assert "zero by construction" in G.note
    G = GaussNewton(objective())
    G @ torch.ones(G.shape[0])
    assert G.note is None


def test_a_loss_that_uses_no_tensor_is_refused():
    X, y = samples()
    f = objective(Wrapped(KINDS["dict"][0]), (X, y), lambda o, t: torch.zeros((), requires_grad=True))
    with pytest.raises(TypeError, match="uses no floating tensor"):
        GaussNewton(f) @ torch.ones(f.size)
