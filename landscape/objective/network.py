"""The module that is measured: the user's own, looked at through wrappers, or a converted copy that follows it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from landscape.objective import state
from landscape.objective.parameters import Selection


class Forward(nn.Module):
    """The forward pass as a module of its own, so that `functional_call` reaches the model under `model.`"""

    def __init__(self, model: nn.Module, function: Callable[[Any, Any], Any] | None) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, inputs: Any) -> Any:
        """The model's outputs on inputs of any of the accepted shapes."""
        if self.function is not None:
            return self.function(self.model, inputs)
        if isinstance(inputs, Mapping):
            return self.model(**inputs)
        if isinstance(inputs, tuple | list):
            return self.model(*inputs)
        return self.model(inputs)


class Network:
    """The module that is measured: the user's own, or a converted copy that follows it."""

    def __init__(self, model: nn.Module, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        self._source = unwrapped(model)
        self.module = self._source
        self.pinned = 0  # how many `at` blocks hold the parameters
        self._seen: state.Snapshot | None = None
        wanted = torch.device(device) if device is not None else None
        tensors = [*self._source.parameters(), *self._source.buffers()]
        moves = wanted is not None and any(t.device != _indexed(wanted) for t in tensors)
        casts = dtype is not None and any(t.is_floating_point() and t.dtype != dtype for t in tensors)
        if moves or casts:
            self.module = copy.deepcopy(self._source).to(device=wanted, dtype=dtype)

    def follow(self) -> None:
        """Bring the copy up to date with the model (not while `at` has set its parameters)."""
        if self.module is self._source or self.pinned:
            return
        parts = state.Parts(self._source)
        if self._seen is not None and parts.unchanged(self._seen):
            return
        self._seen = parts.snapshot()
        with torch.inference_mode(False), torch.no_grad():
            pairs = [
                *zip(self._source.parameters(), self.module.parameters(), strict=True),
                *zip(self._source.buffers(), self.module.buffers(), strict=True),
            ]
            for source, target in pairs:
                target.copy_(source.detach())
        for a, b in zip(self._source.modules(), self.module.modules(), strict=True):
            b.training = a.training


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile` and (distributed) data-parallel wrappers: those have no second derivatives."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _indexed(device: torch.device) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def inner_selection(model: nn.Module, selection: Selection) -> Selection:
    """Names given with a wrapper's prefix mean the parameters inside."""
    if isinstance(selection, str):
        selection = [selection]
    if selection is None or callable(selection):
        return selection
    inner = unwrapped(model) is not model
    return [n.removeprefix("_orig_mod.").removeprefix("module.") if inner else n for n in selection]
