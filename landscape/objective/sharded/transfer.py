"""One parameter between the ranks: gathered from its shares, and cotangents of the whole reduced to them.

The two are linear and each is the other's transpose, so each one's backward pass is the other and any derivative is
exact. They are strung on a chain: a link takes an empty tensor from the one before it and gives one to the next. So
all ranks run through the links of a backward pass in the same order, those of parameters that a rank did not use too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd import Function

from landscape.objective.sharded.layout import Share


class Transfer:
    """How one parameter's shares become the whole, and a sum over the ranks its shares.

    Args:
        share: this rank's part.
        shards: the group that the parameter is cut over.
        replicas: the group of ranks that hold the same share, in a hybrid mesh.
    """

    def __init__(self, share: Share, shards: dist.ProcessGroup, replicas: dist.ProcessGroup | None) -> None:
        self.share, self._shards, self._replicas = share, shards, replicas
        self._ranks = dist.get_world_size(shards)
        self._step = -(-share.shape[share.dim] // self._ranks)

    def gathered(self, local: Tensor) -> Tensor:
        """The whole parameter's shape, contiguous, from every rank's share of it."""
        share = self.share
        first = local.movedim(share.dim, 0)
        lead = first.shape[1:]
        if share.length < self._step:
            first = torch.cat([first, first.new_zeros(self._step - share.length, *lead)])
        whole = first.new_empty(self._ranks * self._step, *lead)
        dist.all_gather_into_tensor(whole, first.contiguous(), group=self._shards)
        return whole[: share.shape[share.dim]].movedim(0, share.dim).contiguous()

    def reduced(self, whole: Tensor) -> Tensor:
        """This rank's share of the sum over all ranks of tensors in the whole parameter's shape."""
        share = self.share
        first = whole.movedim(share.dim, 0)
        missing = self._ranks * self._step - len(first)
        if missing:
            first = torch.cat([first, first.new_zeros(missing, *first.shape[1:])])
        local = first.new_empty(self._step, *first.shape[1:])
        dist.reduce_scatter_tensor(local, first.contiguous(), group=self._shards)
        if self._replicas is not None:
            dist.all_reduce(local, group=self._replicas)
        return local[: share.length].movedim(0, share.dim).contiguous()


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


class Cotangent(Function):
    """As `Gather`, of what is differentiated along."""

    @staticmethod
    def forward(ctx: Any, links: Any, parameter: int, local: Tensor, link: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        ctx.links, ctx.parameter = links, parameter
        return links.cotangent(parameter, local), link.new_empty(0)

    @staticmethod
    def backward(ctx: Any, whole: Tensor, link: Tensor) -> Any:  # noqa: D102
        local, before = Reduce.apply(ctx.links, ctx.parameter, whole, link)
        return None, None, local, before
