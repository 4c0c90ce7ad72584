"""Counts of a loss that a model computes inside and returns: what it divides by is read off its graph.

The last operation of a mean keeps its denominator (the weight of the targets that were not ignored, the number of
elements), so a few samples of two batches tell whether these go as the counts do. A loss that ends in a sum of several
terms says nothing, and is left as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from landscape.objective import state
from landscape.objective.batch import Batch, part, samples
from landscape.objective.candidates import candidate
from landscape.objective.criterion import Criterion
from landscape.objective.network import Network

_ROWS = 4  # samples that are run again
_TOLERANCE = 2e-3
_BATCHES = 16  # that are compared with the first
_SHAPES = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "ToCopy", "Alias", "Clone")


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
            d, own, *before = _run(criterion, network, part(first, 0, rows))
            d_now, own_now, *now = _run(criterion, network, part(few, 0, rows))
            longer = max((first, few), key=samples)
            sums = (
                samples(longer) > 1
                and _run(criterion, network, longer)[0] == _run(criterion, network, part(longer, 0, 1))[0]
            )
        except Exception:  # whatever a user's model raises on a part that is none
            return
        if not d or not d_now or not own or not own_now:
            return
        if sums and d == d_now:
            if abs(count / first_count - 1) > _TOLERANCE:
                raise ValueError(
                    'the loss that the model returns is a sum, or one divided by a constant: pass reduction="sum", or '
                    "have it return its mean (batches of different sizes would be weighted twice)"
                )
            return
        if abs(d_now / d * own / own_now - 1) <= _TOLERANCE:
            return
        given = "count=" if criterion.counter is not None else "the number of samples"
        words = candidate((before[0], before[1]), (now[0], now[1]), d_now / d)
        advice = (
            f"lambda outputs, targets: {words}" if words else "its denominator (labels as targets, to see them in it)"
        )
        raise ValueError(
            f"the loss that the model returns does not divide by {given}: batch {batch.index} and the first have "
            f"denominators in the ratio {d_now / d:.4g}, not {own_now / own:.4g}; pass count={advice}"
        )


def _run(criterion: Criterion, network: Network, batch: Batch) -> tuple[float | None, float, Any, Any]:
    """The loss's denominator, the count, outputs and targets."""
    parts = network.parts()
    every = [p for p in parts.parameters.values() if p.is_floating_point()]
    with torch.enable_grad(), state.random_states(network.device), state.flags(parts, every, "as-is"):
        outputs = network.outputs(batch)
        found = denominator(criterion(outputs, batch.targets))
        count = samples(batch) if criterion.counter is None else criterion.counter(outputs, batch.targets)
    return found, float(count), outputs, batch.targets


def denominator(loss: Tensor) -> float | None:
    """What a loss was divided by in the last operation of its graph, 1 for a sum; None where that cannot be read."""
    node: Any = loss.grad_fn
    while node is not None and type(node).__name__.rstrip("0123456789").removesuffix("Backward") in _SHAPES:
        node = node.next_functions[0][0]
    name = type(node).__name__
    reduction = getattr(node, "_saved_reduction", None)
    if name.startswith("MeanBackward0"):
        return float(node._saved_self_sym_numel)
    if name.startswith("DivBackward"):
        other, above = node._saved_other, node.next_functions[0][0]
        sums = type(above).__name__.startswith("SumBackward0") or getattr(above, "_saved_reduction", None) == 2
        return float(other.detach()) if sums and isinstance(other, Tensor) and other.numel() == 1 else None
    if name.startswith("SumBackward0") or reduction == 2:
        return 1.0
    if name.startswith("NllLoss"):
        return float(node._saved_total_weight) if reduction == 1 else None
    if reduction == 1 and hasattr(node, "_saved_self"):  # mse, binary cross-entropy, huber
        return float(node._saved_self.numel())
    return None
