"""A repeatable copy of a loader, and the share of the batches that each of several ranks has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from landscape.objective.batch import Batch, every, samples
from landscape.objective.pairs import pair


@dataclass(frozen=True)
class OwnLoader:
    """For each pass a loader with the settings of the user's and a frozen order."""

    settings: dict[str, Any]

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)  # workers take their seeds from it
        return iter(DataLoader(**self.settings, generator=generator))


def own_loader(loader: DataLoader[Any]) -> OwnLoader:
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
        return OwnLoader(settings | {"batch_size": loader.batch_size, "drop_last": loader.drop_last})
    generators = {
        id(g): g
        for owner in (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
        if isinstance(g := getattr(owner, "generator", None), torch.Generator)
    }
    states = {key: g.get_state() for key, g in generators.items()}
    try:
        if loader.batch_sampler is not None:
            return OwnLoader(settings | {"batch_sampler": [list(b) for b in loader.batch_sampler]})
        return OwnLoader(settings | {"batch_size": None, "sampler": list(loader.sampler)})
    finally:
        for key, g in generators.items():
            g.set_state(states[key])


@dataclass(frozen=True)
class Share:
    """What one rank takes of the batches of one process, `rank`, `rank + size` and so on.

    Attributes:
        source: the batches as an iterable.
        passed_over: it has those of the other ranks as well, in between.
        cut: it is every `size`-th sample of the only batch, from `rank` on.
    """

    source: Any
    passed_over: bool = False
    cut: bool = False


def share(source: Any, rank: int, size: int, dtype: torch.dtype, *, cut: bool) -> Share:
    """A rank's share of the batches; of the only one by samples, where `cut` allows it and it can be.

    What can be chosen from is not read; a stream is passed over. A `DistributedSampler` has chosen already.
    """
    if isinstance(source, DataLoader):
        if isinstance(source.sampler, DistributedSampler) and source.sampler.num_replicas > 1:
            return Share(source)
        source = own_loader(source)
    if isinstance(source, OwnLoader):
        chosen = source.settings.get("batch_sampler")
        if chosen is not None:
            alone = cut and len(chosen) == 1
            mine = [chosen[0][rank::size]] if alone else chosen[rank::size]
            return Share(OwnLoader(source.settings | {"batch_sampler": [b for b in mine if b]}), cut=alone)
        if "sampler" in source.settings:
            return Share(OwnLoader(source.settings | {"sampler": source.settings["sampler"][rank::size]}))
    if isinstance(source, list | tuple):
        if cut and len(source) == 1 and (part := _samples_of(source[0], rank, size, dtype)) is not None:
            return Share([part], cut=True)
        return Share(list(source[rank::size]))
    return Share(source, passed_over=True)


def _samples_of(raw: Any, rank: int, size: int, dtype: torch.dtype) -> Any:
    """(inputs, targets) of every `size`-th sample; None for a batch that cannot be split."""
    try:
        whole = Batch(0, *pair(raw, dtype))
        part = every(whole, rank, size) if samples(whole) > 1 else None
    except (ValueError, IndexError):
        return None
    return None if part is None else (part.inputs, part.targets)
