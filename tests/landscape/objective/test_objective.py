"""One function of one vector: the weights of batches, moves of the parameters, and what is refused."""

import math

import pytest
import torch
from objective_cases import network, objective, refuses, samples
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from landscape import GaussNewton, Hessian, Objective


def test_value_weights_batches_by_their_terms():
    X, y = samples()
    model = network()
    whole = F.cross_entropy(model(X), y).item()
    assert objective(model, [(X[:16], y[:16]), (X[16:], y[16:])]).value() == pytest.approx(whole, rel=1e-6)
    weight = torch.tensor([0.1, 1.0, 5.0])
    loss = nn.CrossEntropyLoss(weight=weight)
    assert objective(model, [(X[:16], y[:16]), (X[16:], y[16:])], loss).value() == pytest.approx(
        loss(model(X), y).item(), rel=1e-6
    )


def test_value_and_gradient_are_those_of_all_data():
    X, y = samples()
    model = network().double()
    split = [(X[:16].double(), y[:16]), (X[16:].double(), y[16:])]
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")):
        value, gradient = objective(model, split, loss).value_and_gradient()
        whole = loss(model(X.double()), y)
        assert value == pytest.approx(whole.item(), rel=1e-12)
        pieces = torch.autograd.grad(whole, list(model.parameters()))
        assert torch.allclose(gradient, torch.cat([g.reshape(-1) for g in pieces]), rtol=1e-12, atol=1e-14)


def test_sums_are_sums():
    X, y = samples()
    model = network()
    split = [(X[:16], y[:16]), (X[16:], y[16:])]
    total = F.cross_entropy(model(X), y, reduction="sum").item()
    assert objective(model, split, nn.CrossEntropyLoss(reduction="sum")).value() == pytest.approx(total, rel=1e-6)
    own = objective(model, split, lambda o, t: F.cross_entropy(o, t, reduction="sum"), reduction="sum")
    assert own.value() == pytest.approx(total, rel=1e-6)


def test_at_restores_even_after_an_error():
    model = network()
    o = objective(model)
    before = o.theta()
    storages = [p.data_ptr() for p in model.parameters()]
    value = o.value()
    with pytest.raises(ZeroDivisionError), o.at(before + 1):
        assert torch.equal(o.theta(), before + 1)
        assert o.value() != value
        raise ZeroDivisionError
    assert torch.equal(o.theta(), before)
    assert [p.data_ptr() for p in model.parameters()] == storages


def test_bad_arguments():
    X, y = samples()
    with refuses("torch.nn.Module"):
        Objective(lambda x: x, F.cross_entropy, (X, y))
    with refuses("callable"):
        Objective(network(), "loss", (X, y))
    with refuses("Dataset of single samples"):
        objective(data=TensorDataset(X, y))
    with refuses("iterable of such batches"):
        objective(data=3)
    with refuses("the data has no targets"):
        objective(data=X).value()
    with refuses("no batches"):
        objective(data=[]).value()
    with refuses("a tuple of 3 items"):
        objective(data=[(X, X, y)]).value()
    with refuses('reduction="none"'):
        objective(loss=nn.CrossEntropyLoss(reduction="none"))
    with refuses("must be a scalar"):
        objective(loss=lambda o, t: o.sum(1)).value()
    with refuses("must be a scalar tensor"):
        objective(loss=lambda o, t: 3.0).value()
    with refuses("no graph back"):
        objective(loss=lambda o, t: o.detach().sum()).gradient()
    with refuses("no graph back"):
        Hessian(objective(loss=lambda o, t: torch.zeros(()))) @ torch.ones(51)
    with refuses("requires grad"):
        objective(network().requires_grad_(False))
    with refuses("count="):
        objective(data=(X, torch.where(y == 0, -100, y)), loss=lambda o, t: F.cross_entropy(o, t)).value()
    with refuses("no loss terms"):
        objective(data=(X, torch.full_like(y, -100))).value()
    with torch.inference_mode():
        unborn = network()
    with refuses("inference_mode"):
        objective(unborn)
    with refuses(r"shape \(51,\)"):
        Hessian(objective()) @ torch.ones(50)


def test_only_unused_parameters_have_zero_curvature():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    o = objective(Unused(), parameters="unused.*")
    assert (
        float(Hessian(o).to_dense().abs().sum() + GaussNewton(o).to_dense().abs().sum() + o.gradient().abs().sum())
        == 0.0
    )


def test_bfloat16_products_say_how_noisy_they_are():
    X, y = samples()
    o = objective(network().bfloat16(), (X.bfloat16(), y))
    assert o.dtype == torch.float32
    H = Hessian(o)
    eps = torch.finfo(torch.bfloat16).eps
    assert eps <= H.noise < 3 * eps
    exact = Hessian(Objective(network().bfloat16(), nn.CrossEntropyLoss(), (X.bfloat16(), y), dtype=torch.float64))
    v = H.random(1, "normal", torch.Generator().manual_seed(0))
    assert (H @ v - exact @ v).norm() < H.noise * (exact @ v).norm()


def test_a_part_has_the_dtype_of_its_own_parameters():
    model = network()
    model[4].double()
    o = Objective(model, nn.CrossEntropyLoss(), samples(), forward=lambda m, x: m[4](m[:4](x).double()))
    assert o.restrict("0.*").dtype == torch.float32
    assert o.restrict("4.*").dtype == torch.float64


def test_mixed_dtypes_take_the_widest_vector():
    model = network()
    model[4].double()
    o = Objective(model, nn.CrossEntropyLoss(), samples(), forward=lambda m, x: m[4](m[:4](x).double()))
    assert o.dtype == torch.float64
    D = Hessian(o).to_dense()
    assert torch.allclose(D, D.T, atol=1e-6)


def test_a_sample_is_the_same_function_on_the_first_samples():
    model, loss = nn.Linear(3, 2), nn.CrossEntropyLoss()
    X, y = torch.randn(50, 3), torch.randint(0, 2, (50,))
    few = Objective(model, loss, [(X, y), (X, y)]).sample(32)
    assert few.value() == pytest.approx(loss(model(X[:32]), y[:32]).item(), rel=1e-6)
    for kinds in (iter([(X, y), (X[:5], y[:5])]), DataLoader(TensorDataset(X, y), 20)):
        f = Objective(model, loss, kinds)
        assert math.isfinite(f.sample(8).value())
        assert math.isfinite(f.value())  # the pass over all of the data is still to be had


def test_a_batch_that_cannot_be_cut_is_taken_whole():
    model = nn.Linear(3, 2)
    X, A, y = torch.randn(40, 3), torch.rand(40, 40), torch.randint(0, 2, (40,))
    graph = Objective(model, nn.CrossEntropyLoss(), [((X, A), y)], forward=lambda m, inputs: inputs[1] @ m(inputs[0]))
    assert graph.sample(8).value() == pytest.approx(graph.value(), rel=1e-6)


def test_check_is_one_of_three():
    with pytest.raises(ValueError, match="check is"):
        Objective(nn.Linear(3, 2), nn.MSELoss(), (torch.ones(1, 3), torch.ones(1, 2)), check=True)
