"""What a model returns: one tensor, or a nest of them (a tuple, a dict, a dataclass, an object with attributes)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn

from landscape.objective.batch import open_nest


def real_tensors(outputs: Any) -> list[Tensor]:
    """The floating tensors of the outputs, in order."""
    return list(_walk(outputs))


def _walk(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
        return
    for item in _items(value):
        yield from _walk(item)


def _items(value: Any) -> Sequence[Any]:
    nest = open_nest(value)
    if nest is not None:
        return list(nest[0])
    if hasattr(value, "_fields"):  # a packed sequence
        return list(value)
    if hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
        return list(vars(value).values())
    return []


def with_tensors(outputs: Any, tensors: Iterator[Tensor]) -> Any:
    """The same outputs, of the same classes, with other tensors in the places of `real_tensors`."""
    return mapped(outputs, lambda t: next(tensors) if t.is_floating_point() else t)


def mapped(outputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same outputs, of the same classes, with `function` of each tensor in its place, masks and lengths too."""
    if isinstance(outputs, Tensor):
        return function(outputs)
    items = [mapped(item, function) for item in _items(outputs)]
    if isinstance(outputs, Mapping):
        if not isinstance(outputs, MutableMapping):
            return dict(zip(outputs, items, strict=True))
        other = copy.copy(outputs)
        for key, item in zip(list(outputs), items, strict=True):
            other[key] = item
        return other
    nest = open_nest(outputs)
    if nest is not None:
        return nest[1](items)
    if isinstance(outputs, tuple):
        return type(outputs)(*items)
    if not items:
        return outputs
    other = copy.copy(outputs)
    for name, item in zip(list(vars(outputs)), items, strict=True):
        setattr(other, name, item)
    return other


def named(outputs: Any, name: str) -> Tensor | None:
    """The tensor of that name, an item of a dict or an attribute."""
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    return found if isinstance(found, Tensor) else None


def main_output(outputs: Any) -> Tensor | None:
    """The one tensor that the outputs are about: themselves, their `logits`, or the only one beside a scalar loss."""
    if isinstance(outputs, Tensor):
        return outputs
    logits = named(outputs, "logits")
    if logits is not None:
        return logits
    found = [t for t in real_tensors(outputs) if t.ndim]
    return found[0] if len(found) == 1 else None


def own_loss(outputs: Any) -> Tensor | None:
    """The loss that a model returns beside its outputs, or as its only output."""
    loss = outputs if isinstance(outputs, Tensor) else named(outputs, "loss")
    return loss if loss is not None and loss.numel() == 1 and loss.is_floating_point() else None
