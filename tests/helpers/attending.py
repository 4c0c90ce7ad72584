"""A small network with attention, for what can be measured of no other."""

import torch
from torch import nn

from landscape import Objective


def attending():
    """One encoder layer with two heads, and a classifier."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 2)).double()
    return Objective(model, nn.CrossEntropyLoss(), (torch.randn(8, 3, 4).double(), torch.randint(0, 2, (8,))))
