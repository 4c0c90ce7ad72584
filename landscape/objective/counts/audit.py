"""Whether the counts of batches are what the loss divides by, told from its slopes in the outputs.

The mean over terms of two batches together has the slopes of each, times D / (D + D') with D the batch's own
denominator. So putting a few samples of two batches together (cut to a common length where sequences differ) gives
the ratio of their denominators, whatever the loss is, without a run of the model. Where the slopes are not
proportional the loss is no mean over terms (contrastive losses, sums of several means) and any weights define f.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from landscape.objective import state
from landscape.objective.batch import Batch, leaves_of
from landscape.objective.counts.candidates import TOLERANCE, candidate, named_targets
from landscape.objective.counts.inside import Inside
from landscape.objective.criterion import Criterion
from landscape.objective.few import Some, common, joined, rows_of, some_of
from landscape.objective.outputs.nests import real_tensors

_BATCHES = 16  # that are compared with the first
_ADDITIVE = 1e-4  # a root of a mean departs from a mean over terms in second order only


class Audit:
    """Compares the counts of a data set's batches with the first one's, each batch once.

    Attributes:
        inside: the same for losses that a model computes and returns.
    """

    def __init__(self) -> None:
        self.inside = Inside()
        self._seen: set[int] = set()
        self._first: tuple[Some, float, float] | None = None  # samples, their count, the batch's
        self._factor: float | None = None  # of a count to another that it is compared with

    def check(self, criterion: Criterion, batch: Batch, outputs: Any, count: float, used: tuple[int, ...]) -> None:
        """Raises `ValueError` where the loss divides by something else than the count, in words what it would be."""
        if batch.index in self._seen or len(self._seen) > _BATCHES or count == 0.0:
            return
        self._seen.add(batch.index)
        some = some_of(outputs, batch.targets, used)
        if some is None:
            self._compare_lengths(criterion, batch, count)
            return
        own = _count_of(criterion, some, count, len(real_tensors(outputs)[some.used[0]]))
        if self._first is None:
            self._first = some, own, count
            return
        first, first_own, first_count = self._first
        with torch.enable_grad(), state.random_states(some.tensors[0].device):
            measured = denominators(criterion, first, some)
        if measured is None:
            return
        ratio, sums = measured
        if sums:
            if abs(count / first_count - 1) > TOLERANCE:
                raise ValueError(
                    'the loss is a sum, not a mean, over its terms: pass reduction="sum" (batches of different sizes '
                    "would be weighted twice)"
                )
            return
        if first_own > 0 and own > 0 and abs(ratio * first_own / own - 1) > TOLERANCE:
            given = "count=" if criterion.counter is not None else "the number of samples"
            found = candidate((first.outputs, first.targets), (some.outputs, some.targets), ratio)
            advice = f"pass count=lambda outputs, targets: {found}" if found else "pass count= with its denominator"
            raise ValueError(
                f"the loss does not divide by {given}: batch {batch.index} and the first have denominators in the "
                f"ratio {ratio:.4g}, not {own / first_own:.4g}; {advice} (check=False takes the weights as they are)"
            )

    def proportional(self, batch: Batch, count: float, right: float, counted: str) -> None:
        """Raises `ValueError` where a count is not `right`, a known one, up to one factor for all batches."""
        if batch.index in self._seen or min(count, right) <= 0.0:
            return
        self._seen.add(batch.index)
        if self._changes(count / right):
            raise ValueError(
                f"count= is not what the loss divides by: batch {batch.index} has {right:g} terms; leave count= out, "
                f"or pass count=lambda outputs, targets: {counted} (check=False takes the weights as they are)"
            )

    def _compare_lengths(self, criterion: Criterion, batch: Batch, count: float) -> None:
        """Where nothing can be measured, inputs with time in the first dimension have no safe number of samples."""
        n = next((len(t) for _, t in named_targets(batch.targets, "targets")), 0)
        first = next((t for t in leaves_of(batch.inputs) if isinstance(t, Tensor) and t.ndim > 1), None)
        if criterion.counter is not None or first is None or n == 0 or first.shape[0] == n or first.shape[1] != n:
            return
        if self._changes(count / n):
            raise ValueError(
                f"the number of loss terms of batch {batch.index} cannot be told: its inputs have {count:g} rows and "
                f"its targets {n}; pass count= (their second dimension, where the first is time)"
            )

    def _changes(self, factor: float) -> bool:
        """Whether it is another than that of the batches before."""
        if self._factor is None:
            self._factor = factor
        return abs(factor / self._factor - 1) > TOLERANCE


def denominators(criterion: Criterion, first: Some, second: Some) -> tuple[float, bool] | None:
    """(D of the second over D of the first, whether the loss sums instead); None where it is no mean over terms."""
    try:
        a, b = common(first, second)
        together = _slopes(criterion, joined(a, b))
        rows = len(a.tensors[0])
        qa = _ratio(_slopes(criterion, a), [s[:rows] for s in together])
        qb = _ratio(_slopes(criterion, b), [s[rows:] for s in together])
        ra, rb = _shortened(criterion, a, first), _shortened(criterion, b, second)
    except Exception:  # whatever a user's loss raises on a part that is none
        return None
    if qa is None or qb is None or ra is None or rb is None or min(qa, qb, ra, rb) <= 0:
        return None
    if max(abs(qa - 1), abs(qb - 1), abs(ra - 1), abs(rb - 1)) < TOLERANCE:
        return 1.0, True
    if abs(qa + qb - 1) > _ADDITIVE:
        return None
    return (qb / rb) / (qa / ra), False


def advice(criterion: Criterion, batch: Batch, outputs: Any, used: tuple[int, ...]) -> str | None:
    """The count that would be right, from one batch cut in two."""
    some = some_of(outputs, batch.targets, used)
    if some is None or len(some.tensors[0]) < 2:
        return None
    half = len(some.tensors[0]) // 2
    a, b = rows_of(some, 0, half), rows_of(some, half, len(some.tensors[0]))
    if a is None or b is None:
        return None
    with torch.enable_grad(), state.random_states(a.tensors[0].device):
        measured = denominators(criterion, a, b)
    return (
        None
        if measured is None or measured[1]
        else candidate((a.outputs, a.targets), (b.outputs, b.targets), measured[0])
    )


def _count_of(criterion: Criterion, some: Some, count: float, rows: int) -> float:
    """The count of these samples, as it is for the whole batch."""
    if criterion.counter is not None:
        try:
            return float(criterion.counter(some.outputs, some.targets))
        except Exception:  # a count that is made for whole batches
            pass
    return count * len(some.tensors[0]) / rows


def _slopes(criterion: Criterion, some: Some) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_(True) for t in some.tensors]
    loss = criterion(some.filled(leaves), some.targets)
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


def _shortened(criterion: Criterion, short: Some, whole: Some) -> float | None:
    """D of the shortened samples over D of the whole ones."""
    if all(a.shape == b.shape for a, b in zip(short.tensors, whole.tensors, strict=True)):
        return 1.0
    slopes = _slopes(criterion, whole)
    for i, t in enumerate(short.tensors):
        for d in range(1, t.ndim):
            slopes[i] = slopes[i].narrow(d, 0, t.shape[d])
    return _ratio(_slopes(criterion, short), slopes)


def _ratio(parts: list[Tensor], whole: list[Tensor]) -> float | None:
    """r with whole = r * part wherever the part has a slope; None where there is no such number."""
    part_, whole_ = (torch.cat([s.reshape(-1).double() for s in slopes]) for slopes in (parts, whole))
    there = part_ != 0
    part_, whole_ = part_[there], whole_[there]
    size = float(part_ @ part_)
    if not size > 0 or not bool(torch.isfinite(whole_).all()):
        return None
    r = float(part_ @ whole_) / size
    off = float((whole_ - r * part_).norm())
    return r if off <= 1e-3 * float(whole_.norm()) else None
