"""The layers of a network: their weights as matrices, and what they are called with or return as rows of a matrix."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from landscape.objective.batch import Batch

At = Literal["input", "output"]
Mask = Callable[[Any, Any], Tensor] | None


@dataclass(frozen=True)
class Layer:
    """A module with one of its weights, or without one.

    Attributes:
        module: as it is called.
        weight: the name of its weight; None for a module that was asked for and has none.
    """

    module: nn.Module
    weight: str | None

    def tensor(self) -> Tensor:
        """The weight as it is used."""
        assert self.weight is not None
        found: Tensor = getattr(self.module, self.weight)
        return found

    def matrix(self) -> Tensor:
        """The weight as a matrix: `(out, the rest)`, of tables with more dimensions `(the rest, last)`."""
        weight = self.tensor().detach()
        rows = weight.shape[0] if isinstance(self.module, _ConvNd) else weight.numel() // max(1, weight.shape[-1])
        return weight.reshape(rows, -1)

    def rows(self, value: Any, at: At, counted: Tensor | None) -> Tensor | None:
        """A tensor that it gets or returns as `(rows, units)`; None for what is no floating tensor of such a shape.

        Channels of convolutions, and of tensors with four dimensions or more, are units, and every position of every
        sample a row; else the last dimension has the units. `counted` says which of the leading dimensions count.
        """
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            return None
        X = value
        if isinstance(self.module, _ConvNd):
            X = X.movedim(-len(self.module.kernel_size) - 1, -1)
        elif isinstance(self.module, nn.modules.batchnorm._NormBase) or (self.weight is None and X.ndim > 3):
            X = X.movedim(1, -1)
        if counted is not None and X.shape[: counted.ndim] == counted.shape and counted.ndim < X.ndim:
            X = X[counted]
        return X.reshape(-1, X.shape[-1])


def layers_of(model: nn.Module, chosen: Iterable[str] | str | None = None) -> dict[str, Layer]:
    """The layers by name: each module that has a weight of two dimensions or more, or those that are chosen.

    A weight is named by its module, one of several of a module by its own name. `chosen`: names or globs, of modules
    without weights too. Raises `ValueError` for one that matches nothing.
    """
    every: dict[str, Layer] = {}
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList) or ".parametrizations." in f".{path}.":
            continue
        names = list(_weights(module))
        for name in names:
            short = name == "weight" or (len(names) == 1 and path)
            every[path or type(model).__name__ if short else f"{path}.{name}".lstrip(".")] = Layer(module, name)
        if not names and path:
            every[path] = Layer(module, None)
    if chosen is None:
        found = {name: layer for name, layer in every.items() if layer.weight is not None}
        if not found:
            raise ValueError("the model has no weight of two dimensions or more: name its modules with layers=")
        return found
    found = {}
    for pattern in [chosen] if isinstance(chosen, str) else chosen:
        matching = {name: layer for name, layer in every.items() if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            raise ValueError(f"no layer is called {pattern!r}: there are {', '.join(list(every)[:6])}, ...")
        found |= matching
    return found


def _weights(module: nn.Module) -> Iterator[str]:
    """Names of its own floating weights that are matrices or more, parametrised ones too; no single rows or scales."""
    own: dict[str, Tensor] = {name: p for name, p in module._parameters.items() if p is not None}
    for name, parts in getattr(module, "parametrizations", {}).items():
        own[name] = max(parts.parameters(recurse=False), key=Tensor.numel, default=torch.zeros(()))
    for name, p in own.items():
        if p.is_floating_point() and p.ndim >= 2 and (name == "weight" or sum(size > 1 for size in p.shape) > 1):
            yield name


def counted_rows(batch: Batch, mask: Mask) -> Tensor | None:
    """Which positions `(samples, length)` count, True where they do; None: all.

    Of inputs with an `attention_mask`, or a `key_padding_mask` as torch has them, those that are no padding.
    """
    if mask is not None:
        found = mask(batch.inputs, batch.targets)
        if not isinstance(found, Tensor):
            raise TypeError(f"mask must return a tensor, True where a position counts, not {type(found).__name__}")
        return found.bool()
    if not isinstance(batch.inputs, Mapping):
        return None
    for name, value in batch.inputs.items():
        if not isinstance(value, Tensor) or value.ndim != 2:
            continue
        if name == "attention_mask":
            return value > 0
        if str(name).endswith("key_padding_mask") and value.dtype == torch.bool:
            return ~value
    return None
