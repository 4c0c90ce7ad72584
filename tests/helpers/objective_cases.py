"""A small network, its data and objective, which many tests take for granted."""

import pytest
import torch
from torch import nn

from landscape import Hessian, Objective


def network(dropout=0.0, norm=False):
    torch.manual_seed(0)
    layers = [
        nn.Linear(4, 6),
        nn.BatchNorm1d(6) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Linear(6, 3),
    ]
    return nn.Sequential(*layers)


def samples(n=19):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g)


def objective(model=None, data=None, loss=None, **options):
    return Objective(model or network(), loss or nn.CrossEntropyLoss(), samples() if data is None else data, **options)


def reference(v):
    return Hessian(objective()) @ v


def refuses(match, error=(ValueError, TypeError, RuntimeError, MemoryError)):
    return pytest.raises(error, match=match)
