"""A batch in smaller batches: its samples along the first dimension of every tensor in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from landscape.data import Batch, tensors_in


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
