"""Measuring changes nothing."""

import random

import numpy as np
import pytest
import torch
from objective_cases import network, objective, samples
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalFisher, FiniteDifferenceHessian, GaussNewton, Hessian


def everything_of(model):
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "versions": [t._version for t in [*model.parameters(), *model.buffers()]],
        "identity": [id(t) for t in [*model.parameters(), *model.buffers()]],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("mode", ["as-is", "eval", "train"])
@pytest.mark.parametrize("operator", [Hessian, GaussNewton, EmpiricalFisher, FiniteDifferenceHessian])
def test_nothing_is_left_behind(operator, mode):
    model = network(dropout=0.5, norm=True)
    model[4].bias.requires_grad_(False)
    model[3].eval()
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    loader = DataLoader(TensorDataset(*samples()), batch_size=5, shuffle=True)
    before = everything_of(model)
    o = objective(model, loader, mode=mode)
    A = operator(o)
    A @ A.random(2, "normal", torch.Generator().manual_seed(0))
    o.value(), o.gradient(), o.theta()
    assert same(before, everything_of(model))


def test_nothing_is_left_behind_after_an_exception():
    model = network(norm=True)
    before = everything_of(model)

    def broken(outputs, targets):
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError("broken loss")

    o = objective(model, loss=broken, mode="eval")
    for call in (o.value, o.gradient, lambda: Hessian(o) @ torch.ones(o.size)):
        with pytest.raises(KeyError, match="broken"):
            call()
    assert same(before, everything_of(model))


def test_dropout_and_batchnorm_in_train_mode_are_one_function():
    model = network(dropout=0.5, norm=True).double()
    X, y = samples()
    o = objective(model, [(X.double()[:12], y[:12]), (X.double()[12:], y[12:])])
    assert o.value() == o.value()
    H = Hessian(o)
    D = H.to_dense()
    assert torch.allclose(D, D.T, atol=1e-12)
    numeric = FiniteDifferenceHessian(o).to_dense()
    assert torch.allclose(D, numeric, atol=1e-6)


def test_a_hook_on_a_parameter_is_not_part_of_the_function():
    model = network()
    expected = Hessian(objective(model)).to_dense()
    calls = []
    handle = model[0].weight.register_hook(lambda g: calls.append(1) or g * 100)
    assert torch.equal(Hessian(objective(model)).to_dense(), expected)
    assert not calls
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    assert calls
    handle.remove()


def test_between_forward_and_backward_of_a_training_step():
    model, twin = network(), network()
    X, y = samples()
    loss = F.cross_entropy(model(X), y)
    o = objective(model)
    FiniteDifferenceHessian(o) @ torch.ones(o.size)
    Hessian(o) @ torch.ones(o.size)
    loss.backward()
    F.cross_entropy(twin(X), y).backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
@pytest.mark.parametrize("operator", [Hessian, GaussNewton, FiniteDifferenceHessian])
def test_any_scope_gives_the_same_product(operator, scope):
    model = network()
    o = objective(model)
    v = torch.ones(o.size)
    expected = operator(o) @ v
    with scope():
        X, y = samples()
        inside = operator(objective(model, (X, y)))
        assert torch.equal(inside @ v, expected)


def test_dropout_differs_from_batch_to_batch_and_not_from_pass_to_pass():
    X, y = samples(64)
    model = network(dropout=0.5).train()
    once, twice = objective(model, [(X, y)]), objective(model, [(X, y), (X, y)])
    assert once.value() == once.value()
    assert twice.value() == twice.value()
    assert abs(twice.value() - once.value()) > 1e-4 * once.value()
