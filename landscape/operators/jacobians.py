"""The Jacobian of the outputs, row by row: sample by sample where the samples of a batch do not see each other.

Whether they do is not guessed from the layers: a part of the batch must give the same outputs as the whole, and rows
that were found sample by sample must sum up to what a reverse pass through the whole batch gives. Where either fails
(batch statistics, dropout), each row is a reverse pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from landscape.objective.batch import Batch, map_tensors, part
from landscape.objective.objective import Objective
from landscape.operators.autograd import vjp


def jacobian(objective: Objective, batch: Batch, budget: int) -> Iterator[tuple[int, Tensor]]:
    """J of one batch in pieces (number of the first row, rows `(r, n)` in the objective's dtype).

    Rows are the batch's outputs, row-major. Call it inside `objective.measuring()`. A piece takes at most `budget`
    bytes, or one sample's rows where those are more.
    """
    outputs = objective.evaluate(batch).rows
    if outputs.numel() == 0:
        return
    if not separable(objective, batch, outputs):
        yield from _row_by_row(objective, outputs, 0, budget)
        return
    if not objective.tuning.refused("vmap over samples"):
        pieces = _sample_by_sample(objective, batch, outputs, budget)
        first = _confirm_first(objective, outputs, pieces)
        if first is not None:
            yield 0, first
            yield from pieces
            return
        objective.tuning.refuse("vmap over samples")
    width = outputs[0].numel()
    for i in range(len(outputs)):
        yield from _row_by_row(objective, objective.evaluate(part(batch, i, i + 1)).rows, i * width, budget)


def separable(objective: Objective, batch: Batch, outputs: Tensor) -> bool:
    """Whether each sample's outputs depend on that sample alone: the batch's second half by itself gives the same."""
    samples = len(outputs)
    if samples < 2:
        return True
    try:
        with torch.no_grad():
            again = objective.evaluate(part(batch, samples // 2, samples)).rows
    except (RuntimeError, ValueError, TypeError, IndexError):  # a batch that cannot be cut, or statistics of one sample
        return False
    whole = outputs.detach()[samples // 2 :]
    return again.shape == whole.shape and close(again, whole)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Equal to half of the digits of `dtype`: rounding is far below that, another function far above."""
    tolerance = torch.finfo(dtype or expected.dtype).eps ** 0.5
    scale = expected.abs().max()
    return bool(torch.isfinite(scale)) and bool((found - expected).abs().max() <= tolerance * scale)


def cotangents(outputs: Tensor, samples: int) -> Tensor:
    """Fixed random cotangents for the first samples, 0 for the others."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    W[samples:] = 0
    return W


def _confirm_first(objective: Objective, outputs: Tensor, pieces: Iterator[tuple[int, Tensor]]) -> Tensor | None:
    """The first piece if a reverse pass through the whole batch agrees with it."""
    try:
        _, rows = next(pieces)
    except (RuntimeError, NotImplementedError, ValueError):  # an operation that cannot be vectorised over samples
        return None
    W = cotangents(outputs, len(rows) // outputs[0].numel())
    expected = objective.join(vjp([outputs], objective.leaves(), [W]))
    found = W.reshape(-1)[: len(rows)].to(rows.dtype) @ rows
    return rows if close(found, expected, outputs.dtype) else None


def _sample_by_sample(objective: Objective, batch: Batch, outputs: Tensor, budget: int) -> Iterator[tuple[int, Tensor]]:
    def one(pieces: tuple[Tensor, ...], inputs: Any) -> Tensor:
        sample = Batch(batch.index, map_tensors(inputs, lambda t: t.unsqueeze(0)), None)
        return objective.evaluate(sample, pieces).z.squeeze(0)

    leaves = tuple(p.detach() for p in objective.leaves())
    width = outputs[0].numel()
    # the pieces in the parameters' shapes and the rows made of them exist together
    samples = max(1, budget // (3 * width * objective.size * objective.dtype.itemsize))
    rows_of = vmap(jacrev(one), in_dims=(None, 0))
    for start in range(0, len(outputs), samples):
        inputs = part(batch, start, min(start + samples, len(outputs))).inputs
        rows = objective.join(rows_of(leaves, inputs))
        yield start * width, rows.reshape(-1, objective.size)


def _row_by_row(objective: Objective, outputs: Tensor, first: int, budget: int) -> Iterator[tuple[int, Tensor]]:
    leaves = objective.leaves()
    flat = outputs.reshape(-1)
    width = outputs[0].numel()
    together = width * max(1, budget // (width * objective.size * objective.dtype.itemsize))
    for start in range(0, len(flat), together):
        stop = min(start + together, len(flat))
        rows = torch.empty(stop - start, objective.size, dtype=objective.dtype, device=objective.device)
        for i in range(start, stop):  # iterating over a slice would differentiate through all of its entries
            pieces = torch.autograd.grad(flat[i], leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
            rows[i - start] = objective.join(pieces)
        yield first + start, rows
