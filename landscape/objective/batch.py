"""One batch: inputs and targets, the tensors in their nest, and how to move or split it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch: its place in the pass, the model's inputs and the loss's targets."""

    index: int
    inputs: Any
    targets: Any


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a batch, or of a nest of mappings, tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Batch):
        yield from tensors_in((value.inputs, value.targets))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def move(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """The same nest of tensors on a device; floating tensors cast to `dtype` when one is given."""
    if isinstance(value, Tensor):
        wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
        moved = value.detach().to(device=device, dtype=wanted)
        return moved.clone() if moved.is_inference() else moved  # autograd cannot save inference tensors
    if isinstance(value, Mapping):
        return {key: move(item, device, dtype) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(item, device, dtype) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(move(item, device, dtype) for item in value)
    if hasattr(value, "to"):  # a batch of a class of its own, such as a graph
        return value.to(device)
    return value


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
    m = samples(batch)
    order = torch.arange(m) if order is None else order
    parts = []
    for rows in order.split(size):
        take = _taker(m, rows)
        parts.append(replace(batch, inputs=mapped(batch.inputs, take), targets=mapped(batch.targets, take)))
    return parts


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Samples start .. stop of a batch. Raises `ValueError` as `split` does."""
    take = _taker(samples(batch), torch.arange(start, stop))
    return replace(batch, inputs=mapped(batch.inputs, take), targets=mapped(batch.targets, take))


def _taker(m: int, rows: Tensor) -> Callable[[Tensor], Tensor]:
    def take(t: Tensor) -> Tensor:
        if t.ndim == 0:
            return t
        if t.shape[0] != m:
            raise ValueError(
                f"the batch cannot be split: it has {m} samples and a tensor of shape {tuple(t.shape)}; use batches of "
                "the size that is wanted"
            )
        return t.index_select(0, rows.to(t.device))

    return take


def mapped(value: Any, take: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with each tensor in it replaced; `ValueError` for what may hold tensors out of sight."""
    if isinstance(value, Tensor):
        return take(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, take) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, take) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(mapped(item, take) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"the batch cannot be split: it holds a {type(value).__name__}")
