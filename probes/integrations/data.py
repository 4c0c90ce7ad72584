"""What a callback measures on: a fixed choice of a trainer's training samples, in batches of the trainer's size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

Wrap = Callable[[Any], Any]


def chosen(loader: Any, samples: int, seed: int, wrap: Wrap) -> DataLoader[Any]:
    """At most `samples` of the data set behind a loader, drawn once from `seed`, each batch through `wrap`.

    The batches are of equal size, so that each counts the same whatever its loss divides by. Neither the loader nor
    its samplers are read. Raises `ValueError` for data that cannot be drawn from.
    """
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or not size:
        raise ValueError(
            f"samples cannot be drawn from a {type(loader).__name__} without a data set, a length and a batch size: "
            "pass data=, a DataLoader or a list of batches to measure on"
        )
    total = len(cast(Sized, loader.dataset))
    count = min(total, samples)
    count -= count % size if count > size else 0
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    subset: Subset[Any] = Subset(loader.dataset, order[:count].sort().values.tolist())
    return DataLoader(subset, batch_size=size, collate_fn=_Collate(loader.collate_fn, wrap))


def given(data: Any, wrap: Wrap) -> Any:
    """The batches that somebody chose himself, each through `wrap`: a DataLoader or another iterable of batches."""
    if isinstance(data, DataLoader):
        loader = copy.copy(data)
        loader.collate_fn = _Collate(data.collate_fn, wrap)
        return loader
    return [wrap(batch) for batch in data] if isinstance(data, list | tuple) else _Wrapped(data, wrap)


@dataclass(frozen=True)
class _Collate:
    collate: Callable[[Any], Any]
    wrap: Wrap

    def __call__(self, samples: Any) -> Any:
        return self.wrap(self.collate(samples))


@dataclass(frozen=True)
class _Wrapped:
    data: Any
    wrap: Wrap

    def __iter__(self) -> Iterator[Any]:
        return map(self.wrap, self.data)
