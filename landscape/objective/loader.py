"""A loader of the objective's own, which yields the same batches on every pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset


@dataclass(frozen=True)
class _OwnLoader:
    """For each pass a loader with the settings of the user's and a frozen order."""

    settings: dict[str, Any]

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)  # workers take their seeds from it
        return iter(DataLoader(**self.settings, generator=generator))


def own_loader(loader: DataLoader[Any]) -> _OwnLoader:
    """A repeatable copy of a loader. Its samplers are read once; neither they nor any global state moves."""
    settings: dict[str, Any] = {
        "dataset": loader.dataset,
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
    }
    if loader.num_workers:
        settings["prefetch_factor"] = loader.prefetch_factor
    if isinstance(loader.dataset, IterableDataset):
        return _OwnLoader(settings | {"batch_size": loader.batch_size, "drop_last": loader.drop_last})
    generators = {
        id(g): g
        for owner in (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
        if isinstance(g := getattr(owner, "generator", None), torch.Generator)
    }
    states = {key: g.get_state() for key, g in generators.items()}
    try:
        if loader.batch_sampler is not None:
            return _OwnLoader(settings | {"batch_sampler": [list(b) for b in loader.batch_sampler]})
        return _OwnLoader(settings | {"batch_size": None, "sampler": list(loader.sampler)})
    finally:
        for key, g in generators.items():
            g.set_state(states[key])
