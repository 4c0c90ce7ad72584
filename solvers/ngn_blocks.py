"""Passes over parameters in blocks: what several passes touch stays in the cache, and temporaries stay small."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

CACHED = 2**18  # entries of a block on a CPU
AT_ONCE = 2**24  # and elsewhere, where the temporaries are what it bounds


def blocks(counts: Sequence[Any], *lists: list[Tensor], whole: bool = False) -> Iterator[list[Any]]:
    """Columns of a block: the counts, then the tensors of each list; some small tensors, or a piece of a large one.

    Pieces are flat views. Tensors of which one of the row is not contiguous come whole. A block has one device and one
    dtype; with `whole` there is no other limit.
    """
    rows: list[tuple[Any, ...]] = []
    entries = 0
    for count, *tensors in zip(counts, *lists, strict=True):
        first = tensors[0]
        limit = sys.maxsize if whole else CACHED if first.device.type == "cpu" else AT_ONCE
        flat = not whole and all(t.is_contiguous() for t in tensors)
        for piece in zip(*(t.view(-1).split(limit) if flat else [t] for t in tensors), strict=True):
            other = rows and (rows[-1][1].device != first.device or rows[-1][1].dtype != first.dtype)
            if other or (rows and entries + piece[0].numel() > limit):
                yield [list(column) for column in zip(*rows, strict=True)]
                rows, entries = [], 0
            rows.append((count, *piece))
            entries += piece[0].numel()
    if rows:
        yield [list(column) for column in zip(*rows, strict=True)]


class Scratch:
    """Memory for temporaries, the same for every block."""

    def __init__(self, count: int) -> None:
        self._buffers: list[Tensor] = []
        self._views: list[list[Tensor]] = []
        self._count, self._made_for = count, [torch.Size()]

    def like(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        """`count` lists of contiguous tensors of these shapes, with what earlier blocks left in them, at first 0."""
        first, shapes, sizes = tensors[0], [t.shape for t in tensors], [t.numel() for t in tensors]
        need, old = sum(sizes), self._buffers[0] if self._buffers else None
        if old is None or old.numel() < need or old.dtype != first.dtype or old.device != first.device:
            self._buffers = [torch.zeros(need, dtype=first.dtype, device=first.device) for _ in range(self._count)]
        elif shapes == self._made_for:
            return self._views
        self._views = [
            [s.view(shape) for s, shape in zip(buffer[:need].split(sizes), shapes, strict=True)]
            for buffer in self._buffers
        ]
        self._made_for = shapes
        return self._views


def dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>, summed in float32 or wider."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return torch.dot(a.flatten().to(wide), b.flatten().to(wide)).to(torch.float64)


def total(terms: list[Tensor]) -> float:
    """The sum of these numbers, with one wait for the device."""
    return float(torch.stack([t.to(terms[0].device) for t in terms]).sum())


def fused_suits(rate: float, *lists: list[Tensor]) -> bool:
    """Whether `fused_momentum` does these as well as single operations would.

    Its kernel does not look at strides, and takes 1 + rate, which costs digits that only float32 does not miss.
    """
    return rate > 1e-7 and all(t.is_contiguous() and t.dtype == torch.float32 for tensors in lists for t in tensors)


def fused_momentum(xs: list[Tensor], gs: list[Tensor], ds: list[Tensor], rate: float, momentum: float) -> None:
    """d <- momentum d - rate g, then x <- x + d, in one pass: SGD's fused kernel."""
    torch._fused_sgd_(
        xs, gs, ds, weight_decay=0.0, momentum=momentum, lr=-1.0, dampening=1.0 + rate, nesterov=False,
        maximize=False, is_first_step=False,
    )  # fmt: skip
