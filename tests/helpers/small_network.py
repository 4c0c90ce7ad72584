"""A network with its data, loss and parameters as one vector, which tests of solvers share."""

import torch
from torch import nn
from torch.nn import functional as F


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(20, 5, generator=generator).to(dtype), torch.randint(0, 3, (20,), generator=generator)


def loss_of(model):
    X, y = data(next(model.parameters()).dtype)
    return F.cross_entropy(model(X), y)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])
