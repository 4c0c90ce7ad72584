"""What people wrap around a module: compilers and data parallelism."""

from __future__ import annotations

from torch import nn

from landscape.objective.parameters import Selection


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and (distributed) data-parallel wrappers: those have no second derivatives."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def data_parallel(model: nn.Module) -> list[nn.parallel.DistributedDataParallel]:
    """What is wrapped for several ranks in a model, itself first."""
    return [m for m in model.modules() if isinstance(m, nn.parallel.DistributedDataParallel)]


def inner_selection(inner: bool, selection: Selection) -> Selection:
    """Names given with a wrapper's prefix mean the parameters inside."""
    if isinstance(selection, str):
        selection = [selection]
    if selection is None or callable(selection):
        return selection
    return [n.removeprefix("_orig_mod.").removeprefix("module.") if inner else n for n in selection]
