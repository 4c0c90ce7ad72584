"""One batch: inputs and targets, the tensors in their nest, and how to move or split it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch: its place in the pass, the model's inputs and the loss's targets."""

    index: int
    inputs: Any
    targets: Any


def _open(value: Any) -> tuple[Iterable[Any], Callable[[list[Any]], Any]] | None:
    """The items of a nest and what makes the same nest of other items; None for what is not a nest.

    A nest is a batch, a mapping (which becomes a dict), a named tuple, a tuple or a list.
    """
    if isinstance(value, Batch):
        return (value.inputs, value.targets), lambda items: Batch(value.index, *items)
    if isinstance(value, Mapping):
        return value.values(), lambda items: dict(zip(value, items, strict=True))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value, lambda items: type(value)(*items)
    return (value, type(value)) if isinstance(value, tuple | list) else None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a nest."""
    if isinstance(value, Tensor):
        yield value
    elif (nest := _open(value)) is not None:
        for item in nest[0]:
            yield from tensors_in(item)


def convert(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same nest with everything in it that is no nest itself, tensors and others, replaced by `leaf` of it."""
    nest = _open(value)
    return leaf(value) if nest is None else nest[1]([convert(item, leaf) for item in nest[0]])


def first_leaf(value: Any) -> Any:
    """What comes first in a nest."""
    while (nest := _open(value)) is not None:
        value = next(iter(nest[0]), None)
    return value


def move(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """The same nest of tensors on a device; floating tensors cast to `dtype` when one is given."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            wanted = dtype if dtype is not None and leaf.is_floating_point() else leaf.dtype
            t = leaf.detach().to(device=device, dtype=wanted)
            return t.clone() if t.is_inference() else t  # autograd cannot save inference tensors
        return leaf.to(device) if hasattr(leaf, "to") else leaf  # a class of its own, such as a graph

    return convert(value, moved)


def samples(batch: Batch) -> int:
    """How many samples the batch holds: the first dimension of its first tensor that has one.

    Raises `ValueError` when no tensor of the inputs has a first dimension.
    """
    for t in tensors_in(batch.inputs):
        if t.ndim:
            return int(t.shape[0])
    raise ValueError("the batch cannot be split: its inputs hold no tensor with a first dimension")


def split(batch: Batch, size: int, order: Tensor | None = None) -> list[Batch]:
    """The batch in consecutive parts of `size` samples (the last may be smaller), taken in `order`.

    `order` `(samples,)` is a permutation on the host. Raises `ValueError` for a tensor whose first dimension is
    not the number of samples: it cannot be told which of its entries belong to which sample.
    """
    order = torch.arange(samples(batch)) if order is None else order
    return [_rows_of(batch, rows) for rows in order.split(size)]


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Samples start .. stop of a batch. Raises `ValueError` as `split` does."""
    return _rows_of(batch, torch.arange(start, stop))


def _rows_of(batch: Batch, rows: Tensor) -> Batch:
    m = samples(batch)

    def take(t: Tensor) -> Tensor:
        if t.ndim == 0:
            return t
        if t.shape[0] != m:
            raise ValueError(
                f"the batch cannot be split: it has {m} samples and a tensor of shape {tuple(t.shape)}; use batches of "
                "the size that is wanted"
            )
        return t.index_select(0, rows.to(t.device))

    taken: Batch = map_tensors(batch, take)
    return taken


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with each tensor in it replaced; `ValueError` for what may hold tensors out of sight."""

    def replaced(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if leaf is None or isinstance(leaf, bool | int | float | str):
            return leaf
        raise ValueError(f"the batch cannot be split: it holds a {type(leaf).__name__}")

    return convert(value, replaced)
