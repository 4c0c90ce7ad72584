"""Which parameters are chosen, and how they become a vector and back."""

import pytest
import torch
from objective_cases import network, objective
from operator_cases import CASES
from torch.nn import functional as F

from landscape import Objective


def test_names_slices_and_vectors():
    model = network()
    model[0].bias.requires_grad_(False)
    o = objective(model)
    assert o.names == ["0.weight", "4.weight", "4.bias"]
    assert o.slices["4.weight"] == slice(24, 42)
    assert o.size == 45
    values = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert torch.equal(o.flatten(values), o.theta())
    assert all(torch.equal(a, values[name]) for name, a in o.unflatten(o.theta()).items())
    with pytest.raises(ValueError, match="shape"):
        o.unflatten(torch.zeros(3))
    with pytest.raises(KeyError, match=r"4\.bias"):
        o.flatten({k: v for k, v in values.items() if k != "4.bias"})


def test_selections():
    assert objective(parameters="4.*").names == ["4.weight", "4.bias"]
    assert objective(parameters=["*.bias"]).names == ["0.bias", "4.bias"]
    assert objective(parameters=lambda name: name.startswith("0")).names == ["0.weight", "0.bias"]
    assert objective(parameters=lambda name, p: p.ndim == 1).names == ["0.bias", "4.bias"]
    tied = CASES["tied_and_ignored"]().model
    assert Objective(tied, F.cross_entropy, [], parameters="head.weight").names == ["embedding.weight"]
    with pytest.raises(ValueError, match="matches none of"):
        objective(parameters="head.*")
