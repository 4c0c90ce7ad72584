"""Short sketches of vectors that no rank has as a whole: enough to tell whether two of them are the same.

Entries are added up in a few buckets with random signs, for each parameter by itself. The norm of a difference of two
sketches is that of the vectors up to some tens of per cent (Charikar, Chen, Farach-Colton 2002).
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.objective.sharded.layout import Layout, Share

_BUCKETS = 64
_CHUNK = 1 << 20
_MIXER = 0x9E3779B97F4A7C1  # odd, and large enough to send neighbours far apart


def sizes(layout: Layout) -> list[int]:
    """Of the parts of a sketch, one for each parameter."""
    return [min(_BUCKETS, share.shape.numel()) for share in layout.shares]


def sketch(layout: Layout, rows: Tensor) -> Tensor:
    """What this rank's rows of a vector add to its sketch, float64."""
    parts = [
        _buckets(piece, size, share)
        for piece, size, share in zip(rows.split(layout.counts), sizes(layout), layout.shares, strict=True)
    ]
    return torch.cat(parts)


def short(values: Tensor) -> Tensor:
    """A sketch of a tensor that is here as a whole, float64."""
    return _buckets(values.reshape(-1), min(_BUCKETS, values.numel()), None)


def _buckets(values: Tensor, size: int, share: Share | None) -> Tensor:
    found = torch.zeros(size, dtype=torch.float64, device=values.device)
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK].double()
        place = torch.arange(start, start + len(chunk), device=values.device)
        entry = place if share is None else share.entries(place)
        signs = 1.0 - 2.0 * ((entry * _MIXER) >> 40 & 1)
        found.index_add_(0, entry % size, chunk * signs)
    return found
