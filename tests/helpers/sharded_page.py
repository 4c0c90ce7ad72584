"""The code of docs/sharded.md on one of several ranks."""

import torch
from pages import blocks
from paths import ROOT
from torch import nn
from torch.distributed.fsdp import fully_shard

from landscape import Hessian, Objective
from landscape.spectra import eigsh


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x).tanh())


def vectors(rank, world):
    """The shapes of the whole vectors that the page gathers, and of the rank's own."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 6).chunk(world)[rank], torch.randn(32, 6).chunk(world)[rank]
    names = {"model": Blocks(), "loss": nn.MSELoss(), "data": (x, y), "Objective": Objective, "Hessian": Hessian}
    names |= {"eigsh": eigsh, "fully_shard": fully_shard}
    (block,) = blocks(ROOT / "docs/sharded.md")
    exec(block.code, names)
    return names["v"].shape[0], names["f"].size, len(names["pairs"].vectors)
