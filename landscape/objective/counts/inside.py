"""Counts of a loss that a model computes inside and returns: what it divides by is read off its graph.

The last operation of a mean keeps its denominator (the weight of the targets that were not ignored, the number of
elements), so a few samples of one batch or of two tell whether these go as the counts do. Of a sum of several terms
those are looked at whose denominators depend on the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.objective import state
from landscape.objective.batch import Batch, part, samples
from landscape.objective.counts.candidates import TOLERANCE, candidate
from landscape.objective.criterion import Criterion
from landscape.objective.network import Network

_ROWS = 4  # samples that are run again
_BATCHES = 16  # that are compared with the first
_SHAPES = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "ToCopy", "Alias", "Clone", "Neg")
_TERMS = 16  # of a sum that are told apart


@dataclass(frozen=True)
class _Run:
    """Some samples: the denominators of the terms of their loss, their count, outputs and targets."""

    terms: tuple[float | None, ...]
    count: float
    outputs: Any
    targets: Any


class Inside:
    """Compares batches with the first one, each once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._first: tuple[Batch, float] | None = None  # some of its samples, its count

    def check(self, criterion: Criterion, network: Network, batch: Batch, count: float) -> None:
        """Raises `ValueError` where the loss divides by something else than the count."""
        if batch.index in self._seen or len(self._seen) > _BATCHES:
            return
        self._seen.add(batch.index)
        try:
            few = part(batch, 0, min(_ROWS, samples(batch)))
            if self._first is None:
                self._first = few, count
                return
            first, first_count = self._first
            rows = min(samples(first), samples(few))
            longer = max((first, few), key=samples)
            runs = [_run(criterion, network, part(some, 0, rows)) for some in (first, few)]
            runs += _within(criterion, network, longer)
        except Exception:  # whatever a user's model raises on a part that is none
            return
        if len({len(run.terms) for run in runs}) != 1 or not all(run.count for run in runs):
            return
        varying = [term for term in zip(*(run.terms for run in runs), strict=True) if len(set(term)) > 1]
        alone = runs[0].terms[0] if len(runs[0].terms) == 1 else None
        if alone and not varying and len(runs) > 2:
            if abs(count / first_count - 1) > TOLERANCE:
                raise ValueError(
                    'the loss that the model returns is a sum, or one divided by a constant: pass reduction="sum", or '
                    "have it return its mean (batches of different sizes would be weighted twice)"
                )
            return
        self._compare(criterion, batch, runs, varying)

    def _compare(
        self, criterion: Criterion, batch: Batch, runs: list[_Run], varying: list[tuple[float | None, ...]]
    ) -> None:
        """One of the terms whose denominators change is to divide by the count; what cannot be read may be that one."""
        known = [[d for d in term if d] for term in varying]
        if not varying or any(len(term) != len(runs) for term in known):
            return
        own = [run.count / runs[0].count for run in runs]
        looked_at = [term if _adds_up(term) else term[:2] for term in known]  # of pairs of samples there are too many
        off = [[abs(d / term[0] / c - 1) for d, c in zip(term, own, strict=False)] for term in looked_at]
        if any(max(term) <= TOLERANCE for term in off):
            return
        d = [value / looked_at[0][0] for value in looked_at[0]]
        at = off[0].index(max(off[0]))
        place = f"batch {batch.index} and the first" if at == 1 else "different numbers of samples"
        given = "count=" if criterion.counter is not None else "the number of samples"
        words = candidate((runs[0].outputs, runs[0].targets), (runs[at].outputs, runs[at].targets), d[at])
        advice = (
            f"lambda outputs, targets: {words}" if words else "its denominator (labels as targets, to see them in it)"
        )
        raise ValueError(
            f"the loss that the model returns does not divide by {given}: {place} have "
            f"denominators in the ratio {d[at]:.4g}, not {own[at]:.4g}; pass count={advice} "
            "(check=False takes the weights as they are)"
        )


def _within(criterion: Criterion, network: Network, some: Batch) -> list[_Run]:
    """All of these samples, the first of them, and the others; in halves where a model cannot do with one sample."""
    n = samples(some)
    for cut in (1, n // 2):
        with suppress(Exception):  # batch statistics of one sample
            return [_run(criterion, network, part(some, *ends)) for ends in ((0, n), (0, cut), (cut, n)) if n > 1]
    return []


def _adds_up(term: Sequence[float]) -> bool:
    """Whether all samples have as many as the first and the others have."""
    return len(term) > 2 and abs((term[3] + term[4]) / term[2] - 1) <= TOLERANCE


def _run(criterion: Criterion, network: Network, batch: Batch) -> _Run:
    parts = network.parts()
    every = [p for p in parts.parameters.values() if p.is_floating_point()]
    with torch.enable_grad(), state.random_states(network.device), state.flags(parts, every, "as-is"):
        outputs = network.outputs(batch)
        found = tuple(denominators(criterion(outputs, batch.targets)))
        count = samples(batch) if criterion.counter is None else criterion.counter(outputs, batch.targets)
    return _Run(found, float(count), outputs, batch.targets)


def denominators(loss: Tensor) -> list[float | None]:
    """What each term of a loss was divided by, by the last operations of its graph; None where it cannot be read."""
    found = list(_terms(loss.grad_fn, 1.0))
    return found if len(found) <= _TERMS else [None]


def _terms(node: Any, factor: float) -> Iterator[float | None]:
    """Denominators of the terms that a node adds up, each times a factor; 1 for a sum."""
    name = "" if node is None else type(node).__name__.rstrip("0123456789").removesuffix("Backward")
    if name in _SHAPES:
        yield from _terms(node.next_functions[0][0], factor)
    elif name in ("Add", "Sub"):
        for above, _ in node.next_functions:
            if above is not None:
                yield from _terms(above, factor)
    elif name in ("Mul", "Div") and (other := _constant(node, name)):
        yield from _terms(next(f for f, _ in node.next_functions if f is not None), factor * other)
    else:
        own = _own(node, name)
        yield None if own is None else own * factor


def _constant(node: Any, name: str) -> float | None:
    """What a node divides the one tensor by that it differentiates; None where there are two, or it is unknown."""
    before = [f is not None for f, _ in node.next_functions]
    if sum(before) != 1 or (name == "Div" and not before[0]):
        return None
    other = getattr(node, "_saved_other" if before[0] else "_saved_self", None)
    if other is None or (isinstance(other, Tensor) and other.numel() != 1):
        return None
    value = abs(float(other.detach() if isinstance(other, Tensor) else other))
    return None if value == 0.0 else value if name == "Div" else 1.0 / value


def _own(node: Any, name: str) -> float | None:
    reduction = getattr(node, "_saved_reduction", None)
    if name == "Mean":
        dims = getattr(node, "_saved_dim", None)
        return float(node._saved_self_sym_numel) if dims is None else None
    if name == "Sum" or reduction == 2:
        return 1.0
    if name.startswith("NllLoss"):
        return float(node._saved_total_weight) if reduction == 1 else None
    if reduction == 1 and hasattr(node, "_saved_self"):  # mse, binary cross-entropy, huber
        return float(node._saved_self.numel())
    return None
