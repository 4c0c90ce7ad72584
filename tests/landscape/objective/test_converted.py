"""Measured in another dtype, a model is the same function: whatever closes over it meets the converted tensors."""

import copy

import pytest
import torch
from objective_cases import refuses, samples
from torch import nn
from torch.nn import functional as F

from landscape import EmpiricalFisher, GaussNewton, Hessian, Objective, TangentKernel

DOUBLE = torch.float64


def small():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def dense(model, loss, forward=None):
    """The Hessian of the same function in float64 all through, of a model that is converted by hand."""
    X, y = samples()
    return Hessian(Objective(copy.deepcopy(model).double(), loss, (X.double(), y), forward=forward)).to_dense()


def same(first, second):
    return torch.allclose(first, second, rtol=1e-9, atol=1e-12)


def test_a_penalty_on_the_parameters_is_in_it():
    model = small()

    def loss(o, t):
        return F.cross_entropy(o, t) + 0.1 * sum(p.to(o.dtype).square().sum() for p in model.parameters())

    H = Hessian(Objective(model, loss, samples(), dtype=DOUBLE)).to_dense()
    assert same(H, dense(model, nn.CrossEntropyLoss()) + 0.2 * torch.eye(len(H), dtype=DOUBLE))


@pytest.mark.parametrize("part", ["model", "layer"])
def test_a_forward_that_names_the_model_moves_with_it(part):
    model = small()
    run = {"model": lambda _, x: model(x), "layer": lambda m, x: m[2](torch.tanh(model[0](x)))}[part]
    f = Objective(model, nn.CrossEntropyLoss(), samples(), forward=run, dtype=DOUBLE)
    assert same(Hessian(f).to_dense(), dense(model, nn.CrossEntropyLoss()))
    with f.at(f.theta() * 1.5):
        moved = f.value()
    assert moved != f.value()


def test_a_submodule_in_the_loss_is_the_same_one():
    model = small()

    def loss(o, t):
        return (
            F.cross_entropy(o, t) + model[2].weight.square().sum() + model[0](torch.ones(4).to(o.dtype)).square().sum()
        )

    other = copy.deepcopy(model).double()

    def by_hand(o, t):
        return (
            F.cross_entropy(o, t)
            + other[2].weight.square().sum()
            + other[0](torch.ones(4, dtype=DOUBLE)).square().sum()
        )

    X, y = samples()
    expected = Hessian(Objective(other, by_hand, (X.double(), y))).to_dense()
    assert same(Hessian(Objective(model, loss, samples(), dtype=DOUBLE)).to_dense(), expected)


@pytest.mark.parametrize("held", ["list", "optimizer", "forward"])
def test_parameter_objects_that_were_taken_out_are_refused(held):
    model = small()
    owned = list(model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = {
        "list": lambda o, t: F.cross_entropy(o, t) + owned[0].square().sum(),
        "optimizer": lambda o, t: F.cross_entropy(o, t) + optimizer.param_groups[0]["params"][0].square().sum(),
        "forward": nn.CrossEntropyLoss(),
    }[held]
    forward = (lambda m, x: m(x) + owned[-1].to(x.dtype)) if held == "forward" else None
    f = Objective(model, loss, samples(), forward=forward, dtype=DOUBLE)
    for measure in (f.value, f.gradient, lambda: Hessian(f) @ torch.ones(f.size)):
        with refuses("parameter objects"):
            measure()
    assert all(p.requires_grad and p.dtype == torch.float32 for p in owned)
    H = Hessian(Objective(model, loss, samples(), forward=forward))  # on the model's own tensors all is well
    assert H.to_dense().isfinite().all()


def test_class_weights_in_the_loss_are_converted():
    model, weight = small(), torch.tensor([0.3, 1.0, 4.0])
    f = Objective(model, nn.CrossEntropyLoss(weight=weight), samples(), dtype=DOUBLE)
    assert same(Hessian(f).to_dense(), dense(model, nn.CrossEntropyLoss(weight=weight.double())))


def test_a_tensor_from_elsewhere_is_refused_in_a_line():
    model, teacher = small(), small()
    X, _ = samples()
    with refuses("another dtype"):
        Objective(model, lambda o, t: (o - teacher(X.to(o.dtype))).square().mean(), samples(), dtype=DOUBLE).value()


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x[:, None].expand(-1, 3, -1))[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.b.weight = self.a.weight
        self.a.bias.requires_grad_(False)

    def forward(self, x):
        return self.b(torch.tanh(self.norm(self.a(x))))[:, :3]


class Doubled(nn.Module):
    def forward(self, w):
        return 2 * w


def parametrised():
    model = small()
    nn.utils.parametrize.register_parametrization(model[0], "weight", Doubled())
    return model


MODELS = {
    "recurrent": Sequence,
    "tied, frozen, with buffers": Tied,
    "parametrised": parametrised,
    "mixed dtypes": lambda: nn.Sequential(small(), nn.BatchNorm1d(3).double().float()),
    "scripted": lambda: torch.jit.script(small()),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_same_matrices_as_of_a_model_converted_by_hand_and_no_mark(make):
    model = make()
    before = copy.deepcopy(model)
    X, y = samples()
    converted = make().double()
    converted.load_state_dict(model.state_dict())
    hand = Objective(converted, nn.CrossEntropyLoss(), (X.double(), y))
    f = Objective(model, nn.CrossEntropyLoss(), (X, y), dtype=DOUBLE)
    kinds = (
        [Hessian, GaussNewton]
        if isinstance(model, torch.jit.ScriptModule)
        else [Hessian, GaussNewton, EmpiricalFisher, TangentKernel]
    )
    for kind in kinds:
        assert same(kind(f).to_dense(), kind(hand).to_dense())
    for (name, mine), (_, was) in zip(model.state_dict().items(), before.state_dict().items(), strict=True):
        assert mine.dtype == was.dtype, name
        assert torch.equal(mine, was), name
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    if isinstance(model, Sequence):  # which keeps them in a list as well
        assert all(w is p for w, p in zip(model.rnn._flat_weights, model.rnn.parameters(), strict=True))
    assert torch.equal(model(X), before(X))


def test_the_model_has_its_tensors_back_after_an_error():
    model = small()
    mine = list(model.parameters())

    def loss(o, t):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Objective(model, loss, samples(), dtype=DOUBLE).value()
    assert all(a is b for a, b in zip(mine, model.parameters(), strict=True))


def test_parameters_that_are_replaced_are_followed():
    model = small()
    f = Objective(model, nn.CrossEntropyLoss(), samples(), dtype=DOUBLE)
    H = Hessian(f)
    H @ torch.ones(f.size)
    model.load_state_dict({name: 2 * p.detach() for name, p in model.named_parameters()}, assign=True)
    assert same(H.to_dense(), dense(model, nn.CrossEntropyLoss()))
