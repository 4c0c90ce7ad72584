"""What an objective is a function of: in a few words for who reads a record of it, and in checksums."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import suppress
from typing import TYPE_CHECKING

from landscape.objective.batch import Batch, samples
from landscape.objective.pairs import pair

if TYPE_CHECKING:
    from landscape.objective.objective import Objective


def data_in_words(objective: Objective) -> str:
    """`"1,437 samples in one batch"`; of a loader its data set. No batch of a loader is read for it."""
    source = objective._batches.source
    here = f" on rank 0 of {objective.ranks.size}" if objective.ranks.several else ""
    with suppress(TypeError, NotImplementedError, ValueError):  # of unknown length, or without a first dimension
        dataset = getattr(source, "dataset", None)
        if isinstance(dataset, Sized) and isinstance(source, Sized):
            return f"{len(dataset):,} samples of a {type(dataset).__name__} {_in(len(source))}{here}"
        if isinstance(source, list | tuple):
            count = sum(samples(Batch(i, *pair(raw, objective.dtype))) for i, raw in enumerate(source))
            return f"{count:,} samples {_in(len(source))}{here}"
    return f"batches of a {type(source).__name__}{here}"


def data_prints(objective: Objective) -> list[int]:
    """Checksums of its batches, by which each pass is held against the first; none before that one has ended."""
    return objective._batches.prints


def _in(batches: int) -> str:
    return "in one batch" if batches == 1 else f"in {batches:,} batches"
