"""Training by several processes: what `torch.distributed` has to average for a solver.

`DistributedDataParallel` averages the gradients of `backward()`, but neither the loss nor the gradients that a solver
takes of a closure by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def is_distributed() -> bool:
    """Whether this is one of several processes of a default group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def average_loss(loss: float, device: torch.device) -> float:
    """The mean over processes; all of them must call this."""
    if not is_distributed():
        return loss
    total = torch.tensor(loss, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def agreed(tensors: list[Tensor]) -> list[Tensor]:
    """Those of the first process, on all; all of them must call this, with the same shapes."""
    if is_distributed():
        for t in tensors:
            dist.broadcast(t, src=0)
    return tensors


def average_gradients(parameters: list[Tensor], given: dict[Tensor, Tensor]) -> None:
    """Replace dense gradients by their means over processes; all of them must call this, with the same parameters.

    A parameter that some process uses gets a gradient on all, 0 counting for those that do not use it.
    """
    if not parameters or not is_distributed():
        return
    used = torch.tensor([p in given for p in parameters], dtype=torch.int32, device=parameters[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    for p, by_any in zip(parameters, used.tolist(), strict=True):
        if by_any:
            g = given.get(p)
            mean = torch.zeros_like(p) if g is None else g.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(mean)
            given[p] = mean.div_(dist.get_world_size())
