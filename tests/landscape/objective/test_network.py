"""Models through wrappers, in copies, with checkpointing, and all shapes of inputs."""

import copy

import pytest
import torch
from objective_cases import network, objective, reference, samples
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from landscape import GaussNewton, Hessian, Objective


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
