"""Models through wrappers, in copies, with checkpointing, and all shapes of inputs."""

import copy

import pytest
import torch
from objective_cases import network, objective, reference, refuses, samples
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from landscape import EmpiricalFisher, GaussNewton, Hessian, Objective, TangentKernel


def test_what_at_has_set_stays_when_the_model_moves():
    model = network()
    o = objective(model, dtype=torch.float64)
    before = o.theta()
    with o.at(before + 1):
        value = o.value()
        with torch.no_grad():
            model[0].weight.add_(5.0)
        assert torch.equal(o.theta(), before + 1)
        assert o.value() == value
    assert torch.allclose(o.theta()[:24], before[:24] + 5.0, atol=1e-6)


def test_converted_copy_follows_the_model():
    model = network()
    o = objective(model, dtype=torch.float64)
    assert o.dtype == torch.float64
    H = Hessian(o)
    v = torch.ones(o.size)
    H @ v
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    expected = (
        Hessian(Objective(copy.deepcopy(model).double(), nn.CrossEntropyLoss(), (samples()[0].double(), samples()[1])))
        @ v
    )
    assert torch.allclose(H @ v, expected, rtol=1e-12)
    assert next(model.parameters()).dtype == torch.float32


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = network(), reentrant

    def forward(self, x):
        return self.net[4](checkpoint(self.net[:4], x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_of_both_kinds(reentrant):
    v = torch.ones(51)
    o = objective(Checkpointed(reentrant))
    for A, expected in ((Hessian(o), Hessian(objective())), (GaussNewton(o), GaussNewton(objective()))):
        assert torch.allclose(A @ v, expected @ v, atol=1e-6)
        assert torch.allclose(A @ v, expected @ v, atol=1e-6)


def test_compiled_models_and_parts():
    v = torch.ones(51)
    assert torch.allclose(Hessian(objective(torch.compile(network()))) @ v, reference(v), atol=1e-6)
    model = network()
    part = nn.Sequential(torch.compile(model[:4]), model[4])
    assert torch.allclose(Hessian(objective(part)) @ v, reference(v), atol=1e-6)


class Classifier(nn.Module):
    """The calling convention of Hugging Face models."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, input_values, labels=None):
        logits = self.net(input_values)
        return {"logits": logits, "loss": F.cross_entropy(logits, labels)}


def test_dict_batches():
    X, y = samples()
    batch = {"input_values": X, "labels": y}
    v = torch.ones(45 + 6)
    for data in (
        batch,
        [batch],
        DataLoader([{"input_values": a, "labels": b} for a, b in zip(X, y, strict=True)], batch_size=7),
    ):
        o = Objective(Classifier(), lambda out, labels: out["loss"], data)
        assert torch.allclose(Hessian(o) @ v, reference(v), atol=1e-6)
        assert torch.allclose(GaussNewton(o) @ v, GaussNewton(objective()) @ v, atol=1e-6)
        o = Objective(Classifier(), nn.CrossEntropyLoss(), data, forward=lambda m, x: m(**x)["logits"])
        assert torch.allclose(GaussNewton(o) @ v, GaussNewton(objective()) @ v, atol=1e-6)


def test_tuple_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, a, b):
            return self.net(torch.cat([a, b], 1))

    X, y = samples()
    o = Objective(Two(), nn.CrossEntropyLoss(), ((X[:, :2], X[:, 2:]), y))
    v = torch.ones(o.size)
    assert torch.allclose(Hessian(o) @ v, reference(v), atol=1e-6)


def residual(model, x):
    """What physics-informed networks are trained on: u' + u."""
    x = x.detach().clone().requires_grad_(True)
    u = model(x)
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0] + u


def scalar_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double()


@pytest.mark.parametrize("memory", ["auto", 20_000])
def test_derivatives_inside_the_forward_pass(memory):
    model, x, y = scalar_network(), torch.linspace(0, 1, 10).double()[:, None], torch.ones(10, 1).double()
    o = Objective(model, nn.MSELoss(), list(zip(x.split(4), y.split(4), strict=True)), forward=residual, memory=memory)

    def outputs(theta):
        shapes = [p.shape for p in model.parameters()]
        pieces = [part.reshape(s) for part, s in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]

        def u(x):
            return pieces[2] @ torch.tanh(pieces[0] @ x + pieces[1]) + pieces[3]

        return torch.stack([torch.func.jacrev(u)(row)[0] + u(row) for row in x])

    theta = o.theta()
    f = lambda theta: F.mse_loss(outputs(theta), y)  # noqa: E731
    J = torch.func.jacrev(outputs)(theta).reshape(10, -1)
    assert o.value() == pytest.approx(float(f(theta)), rel=1e-12)
    torch.testing.assert_close(o.gradient(), torch.func.grad(f)(theta))
    torch.testing.assert_close(Hessian(o).to_dense(), torch.func.jacrev(torch.func.grad(f))(theta))
    torch.testing.assert_close(GaussNewton(o).to_dense(), 2 * J.T @ J / 10)
    torch.testing.assert_close(TangentKernel(o).gram(), J @ J.T / 10)
    slopes = 2 * (outputs(theta) - y) * J
    torch.testing.assert_close(EmpiricalFisher(o).to_dense(), slopes.T @ slopes / 10)


class Energy(nn.Module):
    """Forces are the negative gradient of an energy, by an attribute of the data that asks for gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def forward(self, x):
        energy = self.net(x.requires_grad_(True))
        return {"energy": energy, "forces": -torch.autograd.grad(energy.sum(), x, create_graph=True)[0]}


def test_derivatives_in_the_forward_pass_and_in_the_loss():
    X = samples()[0].double()
    model = Energy()

    def loss(outputs, targets):
        (again,) = torch.autograd.grad(outputs["energy"].sum(), model.x, create_graph=True)
        return (outputs["forces"] - targets).square().mean() + again.square().mean()

    model.register_forward_pre_hook(lambda module, inputs: setattr(module, "x", inputs[0]))
    o = Objective(model, loss, (X, torch.ones_like(X)))
    theta, v, step = o.theta(), torch.ones(o.size).double(), 1e-5
    values, gradients = [], []
    for sign in (1, -1):
        with o.at(theta + sign * step * v):
            values.append(o.value())
            gradients.append(o.gradient())
    assert float(o.gradient() @ v) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-7)
    torch.testing.assert_close(Hessian(o) @ v, (gradients[0] - gradients[1]) / (2 * step), rtol=1e-6, atol=1e-8)
    assert not X.requires_grad
    assert not hasattr(model, "x")


class Forces(Energy):
    """As it is deployed: forces of evaluation have no graph back to the parameters."""

    def forward(self, x):
        x = x.clone().requires_grad_(True)
        return -torch.autograd.grad(self.net(x).sum(), x, create_graph=self.training)[0]


def test_forces_without_a_graph_have_a_value_and_are_refused_a_gradient():
    X, model = samples()[0].double(), Forces().eval()
    o = Objective(model, nn.MSELoss(), (X, torch.ones_like(X)))
    assert o.value() == pytest.approx(float(nn.MSELoss()(model(X), torch.ones_like(X))))
    with pytest.raises(ValueError, match="no graph back to the model's parameters"):
        o.gradient()


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x) * (2.0 if torch.is_grad_enabled() else 1.0)


def test_a_value_is_that_of_the_function_that_is_differentiated():
    assert objective(Branching()).value() == objective(forward=lambda m, x: 2 * m(x)).value()


@pytest.mark.parametrize("kind", [Hessian, GaussNewton, EmpiricalFisher, TangentKernel])
def test_sparse_embeddings_are_measured_as_dense_ones(kind):
    torch.manual_seed(0)
    sparse = nn.Sequential(nn.Embedding(6, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    dense = copy.deepcopy(sparse)
    dense[0].sparse = False
    data = torch.randint(0, 6, (5, 2)), torch.randint(0, 2, (5,))
    found, expected = (Objective(m, nn.CrossEntropyLoss(), data) for m in (sparse, dense))
    assert torch.equal(found.gradient(), expected.gradient())
    A, B = kind(found), kind(expected)
    assert torch.allclose(A @ torch.ones(A.shape[0]), B @ torch.ones(B.shape[0]), atol=1e-7)
    assert sparse[0].sparse


def test_a_sparse_gradient_of_a_function_of_ones_own():
    model = nn.Embedding(6, 3)
    forward = lambda m, x: F.embedding(x, m.weight, sparse=True).sum(1)  # noqa: E731
    data = torch.tensor([[0, 1], [2, 2]]), torch.tensor([0, 2])
    dense = Objective(model, nn.CrossEntropyLoss(), data, forward=lambda m, x: m(x).sum(1))
    o = Objective(model, nn.CrossEntropyLoss(), data, forward=forward)
    assert torch.equal(o.gradient(), dense.gradient())
    with refuses("sparse=False"):
        Hessian(o) @ torch.ones(o.size)


def test_a_compiled_function_inside_the_forward_pass():
    compiled = torch.compile(lambda h: torch.tanh(h), backend="eager")
    forward = lambda m, x: m[4](compiled(m[0](x)))  # noqa: E731
    v = torch.ones(51)
    assert torch.allclose(Hessian(objective(forward=forward)) @ v, reference(v), atol=1e-6)
