"""The data of an objective: the same batches on every pass, whatever the loader does between passes.

Batches are held in host memory when they fit; a larger data set gets a loader of its own with a frozen order, and
each pass is compared with the first by fingerprints. The training loop's own iterator is never touched.

Several ranks run as many batches as the one with most: who has run out repeats the last one, who has none runs
another's, without weight.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch.utils.data import DataLoader

from landscape.memory import Memory, budget
from landscape.objective.batch import Batch, move, samples, tensors_in
from landscape.objective.counts.audit import Audit
from landscape.objective.loader import Share, own_loader, share
from landscape.objective.pairs import batches_of, pair
from landscape.objective.state import random_states, seed_everything
from landscape.ranks import Ranks, agreed_on

_SAMPLED = 1 << 16  # elements of a large tensor that enter its fingerprint


class DataChanged(RuntimeError):
    """The data was not the same on two passes, so there is no one function to measure."""


class NoData(ValueError):
    """There are no batches."""

    def __init__(self, where: str = "") -> None:
        super().__init__(f"the data is empty{where}: it yields no batches")


class Batches:
    """Batches that can be passed over again and again, with a check that they stay the same."""

    def __init__(
        self, data: Any, *, memory: Memory = "auto", dtype: torch.dtype = torch.float32, ranks: Ranks | None = None
    ) -> None:
        self.audit = Audit()  # of the weights of these batches
        self.ranks = ranks or Ranks()
        self._rounds: int | None = None  # batches that each rank runs, once that is agreed on
        self.total: int | None = None  # batches of all ranks, then
        self._borrowed: Batch | None = None  # of another rank, where this one has none
        self._source = batches_of(data)
        self._share: Share | None = None  # of the batches of one process
        self.origin: Batches | None = None  # those, then
        self._dtype = dtype  # of floating numbers that come as numpy arrays or lists
        self._one_shot = isinstance(self._source, Iterator)
        self._budget = budget(memory, torch.device("cpu"))
        self._held: list[Batch] | None = None
        self._first: Batch | None = None
        self._prints: list[int] = []
        self._marks: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Batch]:
        """One pass, on the devices where the data lives. Raises `DataChanged` when it differs from the first.

        Numbers of batches are global: batch i of rank r of R is i R + r.
        """
        if not self.ranks.several:
            yield from self._own()
            return
        assert self._rounds is not None, "align() comes first"
        rank, size = self.ranks.rank, self.ranks.size
        done, last = 0, self._borrowed
        for batch in self._filled():
            yield (last := replace(batch, index=done * size + rank))
            done += 1
        assert last is not None
        for i in range(done, self._rounds):
            yield replace(last, index=i * size + rank, padding=True)

    @property
    def prints(self) -> list[int]:
        """Checksums of this rank's batches, as the first pass found them."""
        return list(self._prints)

    @property
    def source(self) -> Any:
        """What the batches come from."""
        return self._source

    @property
    def aligned(self) -> bool:
        """Whether the ranks know how many batches each runs."""
        return self._rounds is not None or not self.ranks.several

    def align(self) -> None:
        """Agree with the other ranks on the number of batches; they all call this. Raises `NoData` when none has any.

        Reads this rank's data once.
        """
        if self.aligned:
            return
        counts = self.ranks.gathered(self.ranks.agreed(lambda: sum(1 for _ in self._filled())))
        if not max(counts):
            raise agreed_on(NoData(" on every rank"))
        if not min(counts):
            source = next(rank for rank, count in enumerate(counts) if count)
            given = next(self._filled()) if source == self.ranks.rank else None
            given = self.ranks.shared(given, source)
            self._borrowed = None if counts[self.ranks.rank] else given
        self._rounds, self.total = max(counts), sum(counts)

    def dealt(self, ranks: Ranks, *, cut: bool = True) -> Batches:
        """This rank's share of the same batches; every rank takes its own. `cut`: of the only batch by samples."""
        source = [(batch.inputs, batch.targets) for batch in self._held] if self._held is not None else self._source
        other = Batches([], dtype=self._dtype, ranks=ranks)
        other._budget, other.origin = self._budget, self
        with _repeatable_randomness(0):
            other._share = share(source, ranks.rank, ranks.size, self._dtype, cut=cut)
        other._source, other._one_shot = other._share.source, isinstance(other._share.source, Iterator)
        return other

    @property
    def cut(self) -> bool:
        """Whether ranks have samples of one batch."""
        return self._share is not None and self._share.cut

    def alone(self) -> Batches:
        """The batches of this rank by themselves; the borrowed one where it has none. After `align`."""
        other = copy.copy(self)
        other.ranks, other.total = Ranks(), None
        if self._borrowed is not None:
            other._hold([self._borrowed])
        return other

    def whole(self) -> Batches | None:
        """The batches of all ranks in their order, held on each; None where one has no room for them. After `align`."""
        sizes = self.ranks.agreed(lambda: sum(t.nbytes for batch in self._filled() for t in tensors_in(batch)))
        needed, budgets = zip(*self.ranks.gathered((sizes, self._budget)), strict=True)
        if sum(needed) > min(budgets):
            return None
        host = torch.device("cpu")
        every = self.ranks.gathered(self.ranks.agreed(lambda: [move(batch, host, None) for batch in self._filled()]))
        in_order = [batch for round_ in zip_longest(*every) for batch in round_ if batch is not None]
        other = copy.copy(self)
        other.ranks, other.total, other._borrowed = Ranks(), None, None
        other._hold([replace(batch, index=i) for i, batch in enumerate(in_order)])
        return other

    def _filled(self) -> Iterator[Batch]:
        """This rank's batches but those without samples; maybe none."""
        try:
            yield from (batch for batch in self._own() if not _is_empty(batch))
        except NoData:
            return

    def _own(self) -> Iterator[Batch]:
        """This rank's batches, numbered from 0. Raises `NoData` where there are none."""
        if self._held is not None:
            self._check(self._held)
            yield from self._held
        elif self._prints:
            yield from self._stream()
        else:
            yield from self._first_pass()

    def first(self) -> Batch:
        """The first batch, without a pass over the others where the data can be read again; after `align`."""
        if self.ranks.several:
            return self._borrowed or next(self._filled())
        if self._held is None and self._one_shot:
            for _ in self._own():
                pass
        if self._held is not None:
            return self._held[0]
        if self._first is None:
            self._first = next(self._read(), None)
        if self._first is None:
            raise NoData
        return self._first

    def _first_pass(self) -> Iterator[Batch]:
        """Hold what comes while it fits; beyond the budget go over to streaming with fingerprints."""
        held: list[Batch] = []
        used = 0
        owned = isinstance(self._source, list | tuple)  # the user's own list costs no further memory
        for batch in self._read():
            used += 0 if owned else sum(t.nbytes for t in tensors_in(batch))
            held.append(batch)
            if used > self._budget:
                if self._one_shot:
                    raise MemoryError(
                        f"the data is an iterator that can be read once, and its first {len(held)} batches already "
                        f"fill the {self._budget / 2**30:.1f} GiB budget: pass a DataLoader or a list instead"
                    )
                held = []
                break
        if not held:
            if used == 0:
                raise NoData
            yield from self._stream()
            return
        self._hold(held)
        yield from held

    def _hold(self, held: list[Batch]) -> None:
        self._held = held
        self._prints = [fingerprint(b) for b in held]
        self._marks = _versions(held)

    def _stream(self) -> Iterator[Batch]:
        first = not self._prints
        prints: list[int] = []
        for batch in self._read():
            prints.append(fingerprint(batch))
            if not first and self._prints[batch.index : batch.index + 1] != prints[-1:]:
                raise DataChanged(
                    f"batch {batch.index} is not the one that the first pass saw: the data set or its transforms are "
                    "random, or an iterable reshuffles itself; fix its seed, or give a larger memory= to hold the data"
                )
            yield batch
        if first:
            self._prints = prints
        elif len(prints) != len(self._prints):
            raise DataChanged(
                f"this pass had {len(prints)} batches, the first had {len(self._prints)}: the data changed length"
            )

    def _read(self) -> Iterator[Batch]:
        """The batches as they come. Random transforms in this process repeat themselves on every pass, whatever
        is drawn between two batches, because each batch is fetched under a seed of its own.
        """
        with _repeatable_randomness(0):
            if isinstance(self._source, DataLoader):
                self._source = own_loader(self._source)
            iterator = iter(self._source)
        passed_over = self._share is not None and self._share.passed_over
        rank, size = self.ranks.rank, self.ranks.size
        number, step = (0, 1) if passed_over else (rank, size)  # numbers of batches are global
        index = 0
        while True:
            with _repeatable_randomness(number):
                try:
                    raw = next(iterator)
                except StopIteration:
                    return
            if not passed_over or number % size == rank:
                yield Batch(index, *pair(raw, self._dtype))
                index += 1
            number += step

    def _check(self, held: list[Batch]) -> None:
        """Held tensors may be the user's own: an edit in place is noticed by version, or by content on the CPU."""
        marks = _versions(held)
        on_host = all(t.device.type == "cpu" for t in tensors_in(held))
        if marks == self._marks and not (on_host and isinstance(self._source, list | tuple)):
            return
        for batch, known in zip(held, self._prints, strict=True):
            if fingerprint(batch) != known:
                raise DataChanged(
                    f"the tensors of batch {batch.index} were edited since the first pass: make a new Objective, or, "
                    "where the model or the loss writes into them (labels[labels == 0] = -100), let it do so in a clone"
                )
        self._marks = marks


def _is_empty(batch: Batch) -> bool:
    try:
        return samples(batch) == 0
    except ValueError:  # inputs without a first dimension
        return False


def _versions(held: list[Batch]) -> list[tuple[int, int]]:
    return [(t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors_in(held)]


@contextmanager
def _repeatable_randomness(number: int) -> Iterator[None]:
    cpu = torch.device("cpu")
    with random_states(cpu):
        seed_everything(number, cpu)
        yield


def fingerprint(batch: Batch) -> int:
    """A checksum of shapes, dtypes and content (evenly spaced elements of a large tensor)."""
    code = 0
    for t in tensors_in(batch):
        flat = t.detach().reshape(-1)
        stride = max(1, flat.numel() // _SAMPLED)
        sample = flat[::stride].cpu().contiguous()
        code = zlib.crc32(repr((tuple(t.shape), t.dtype)).encode(), code)
        code = zlib.crc32(sample.view(torch.uint8).numpy().tobytes(), code)
    return code
