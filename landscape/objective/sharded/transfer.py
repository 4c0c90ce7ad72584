"""One parameter between the ranks: gathered from its shares, and cotangents of the whole reduced to them.

The two are linear and each is the other's transpose, so each one's backward pass is the other and any derivative is
exact. They are strung on a chain: a link takes an empty tensor from the one before it and gives one to the next. So
all ranks run through the links of a backward pass in the same order, those of parameters that a rank did not use too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from landscape.objective.sharded.layout import Share
from landscape.ranks import Ranks


class Transfer:
    """How one parameter's shares become the whole, and a sum over the ranks its shares.

    Args:
        share: this rank's part.
        shards: the ranks that the parameter is cut over.
        replicas: those that hold the same share, in a hybrid mesh.
    """

    def __init__(self, share: Share, shards: Ranks, replicas: Ranks) -> None:
        self.share, self._shards, self._replicas = share, shards, replicas
        self._step = -(-share.shape[share.dim] // shards.size)

    def gathered(self, local: Tensor) -> Tensor:
        """The whole parameter's shape, contiguous, in memory of its own, from every rank's share of it."""
        share = self.share
        first = _padded(local.movedim(share.dim, 0), self._step)
        whole = self._shards.collected(first)[: share.shape[share.dim]].movedim(0, share.dim).contiguous()
        return whole if self._shards.several else whole.clone()

    def reduced(self, whole: Tensor) -> Tensor:
        """This rank's share of the sum over all ranks of tensors in the whole parameter's shape."""
        share = self.share
        first = _padded(whole.movedim(share.dim, 0), self._shards.size * self._step)
        local = self._replicas.sum(self._shards.portion(first).contiguous())
        return local[: share.length].movedim(0, share.dim).contiguous()


def _padded(t: Tensor, length: int) -> Tensor:
    return t if len(t) == length else torch.cat([t, t.new_zeros(length - len(t), *t.shape[1:])])


class Gather(Function):
    """`(share, link)` to `(whole, link)`."""

    @staticmethod
    def forward(ctx: Any, links: Any, parameter: int, local: Tensor, link: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        ctx.links, ctx.parameter = links, parameter
        return links.gather(parameter, local), link.new_empty(0)

    @staticmethod
    def backward(ctx: Any, whole: Tensor, link: Tensor) -> Any:  # noqa: D102
        local, before = Reduce.apply(ctx.links, ctx.parameter, whole, link)
        return None, None, local, before


class Reduce(Function):
    """`(cotangent of the whole, link)` to `(its sum's share, link)`."""

    @staticmethod
    def forward(ctx: Any, links: Any, parameter: int, whole: Tensor, link: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        ctx.links, ctx.parameter = links, parameter
        return links.reduce(parameter, whole), link.new_empty(0)

    @staticmethod
    def backward(ctx: Any, local: Tensor, link: Tensor) -> Any:  # noqa: D102
        whole, before = Cotangent.apply(ctx.links, ctx.parameter, local, link)
        return None, None, whole, before


class Cotangent(Gather):
    """As `Gather`, of what is differentiated along."""

    @staticmethod
    def forward(ctx: Any, links: Any, parameter: int, local: Tensor, link: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        ctx.links, ctx.parameter = links, parameter
        return links.cotangent(parameter, local), link.new_empty(0)
