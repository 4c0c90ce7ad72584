"""Vectors and outputs held against others: as they are, or by sketches where ranks share the rows of a vector.

What decides how a self-check goes on has to be the same on all ranks that run a model together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from landscape.objective.objective import Objective
from landscape.objective.sharded.sketch import short, sizes, sketch

_DRAWN = 1 << 20


def inner(objective: Objective, v: Tensor, w: Tensor) -> float:
    """<v, w> of two vectors of the parameter space."""
    return float(objective.shares()[1].sum((v @ w).double()) if objective.sharded else v @ w)


def norm(objective: Objective, v: Tensor) -> float:
    """The norm of a vector of the parameter space."""
    return math.sqrt(inner(objective, v, v)) if objective.sharded else float(v.norm())


def outline(objective: Objective, v: Tensor) -> Tensor:
    """What a vector of the parameter space is compared by: itself; of a sharded model a sketch that all ranks have."""
    if not objective.sharded:
        return v
    layout, holders = objective.shares()
    return holders.sum(sketch(layout, v))


def blocks(objective: Objective) -> list[int]:
    """Sizes of the parameters' parts of an outline."""
    return sizes(objective.shares()[0]) if objective.sharded else [p.numel() for p in objective.leaves()]


def outline_of_outputs(objective: Objective, values: Tensor) -> Tensor:
    """What the outputs for this rank's samples are compared by; of a sharded model sketches of all ranks' ones."""
    if not objective.sharded:
        return values
    return torch.cat([t.to(values.device) for t in objective.gathered(lambda: short(values).cpu())])


def uniform(objective: Objective, generator: torch.Generator) -> Tensor:
    """A vector of the parameter space with entries from -1/2 to 1/2, float32 on the host; never n numbers at once."""

    def drawn(size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float32).sub_(0.5)

    if not objective.sharded:
        return drawn(objective.size)
    layout, _ = objective.shares()
    return torch.cat([layout.kept(drawn(stop - start), start) for start, stop in layout.windows(_DRAWN)])


def clear_padding(objective: Objective, v: Tensor) -> None:
    """Zero, in place, in the rows of embeddings that torch holds fixed (`padding_idx`)."""
    shares = objective.shares()[0].shares if objective.sharded else [None] * len(objective.names)
    pieces = list(zip(objective.unflatten(v).values(), objective.leaves(), shares, strict=True))
    for module in objective.module.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None:
            held = objective.held(module.weight)
            for piece, leaf, share in pieces:
                row = module.padding_idx - (share.start if share is not None and share.dim == 0 else 0)
                if leaf is held and 0 <= row < len(piece):
                    piece[row] = 0.0
