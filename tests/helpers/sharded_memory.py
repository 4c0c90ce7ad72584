"""What `eigsh` takes at its peak on one rank, with a basis that is the larger part of it."""

from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from landscape import Hessian, Objective
from landscape.spectra import eigsh

WIDTH, LAYERS, PRODUCTS = 1024, 20, 30


def resident(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def peak(rank, world):
    """(parameters, bytes at the peak above what was there before the model, bytes gathered at once)."""
    before = resident("VmRSS")
    with torch.device("meta"):
        blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(LAYERS)]
        model = nn.Sequential(*blocks, nn.Linear(WIDTH, 3))
    if world > 1:
        for block in model:
            fully_shard(block)
        fully_shard(model)
    model.to_empty(device="cpu")
    torch.manual_seed(rank)
    for p in model.parameters():
        nn.init.normal_(p.to_local() if world > 1 else p, std=WIDTH**-0.5)
    f = Objective(model, nn.CrossEntropyLoss(), (torch.randn(4, WIDTH), torch.randint(3, (4,))), check=False)
    found = eigsh(Hessian(f), k=2, max_matvecs=PRODUCTS, generator=torch.Generator().manual_seed(0))
    return f.size, resident("VmHWM") - before, found.footprint.gathered
