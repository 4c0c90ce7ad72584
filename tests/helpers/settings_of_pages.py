"""What pages take for granted before their first block: names, or files in the current folder."""

import torch
from torch import nn

from landscape import Hessian, Objective
from landscape.spectra import density, footprint


def objective():
    torch.manual_seed(0)
    data = (torch.randn(32, 4), torch.randint(0, 2, (32,)))
    return Objective(nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 2)), nn.CrossEntropyLoss(), data)


def memory():
    return {"A": Hessian(objective()), "footprint": footprint, "density": density}


SETTINGS = {"docs/memory.md": memory}
