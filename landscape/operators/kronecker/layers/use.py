"""One use of a layer in a forward pass: what went in, what came out, and which of its rows belong to which sample."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import torch
from torch import Tensor

from landscape.operators.kronecker.layers.layer import Layer

SHARED = -1  # one output for all samples


class Use:
    """A call of a layer on a batch.

    Attributes:
        layer: the block it belongs to.
        output: the tensor to take derivatives in.
        shape: of what the layer gave; the output has a sample dimension more where one was shared by all.
        samples: of the batch.
        axis: the dimension along which samples lie: 0 also for rows of all samples one after the other.
        key: of this call, the same in each batch.
    """

    def __init__(self, layer: Layer, output: Tensor, shape: torch.Size, samples: int) -> None:
        self.layer, self.output, self.shape, self.samples = layer, output, shape, samples
        self.axis = 0
        self.key: Hashable = None

    @property
    def lead(self) -> tuple[int, ...]:
        """Sizes of the dimensions along which samples may lie."""
        raise NotImplementedError

    def slopes(self, g: Tensor) -> Tensor:
        """`(N, R, groups, out)` from the derivative of something in the output."""
        raise NotImplementedError

    def inputs(self, start: int, stop: int) -> Tensor:
        """What went in for some samples, `(some, R, groups, inner)` with the 1 of a bias."""
        raise NotImplementedError

    @property
    def positions(self) -> int:
        """R."""
        whole = torch.Size(self.lead).numel()
        return whole if self.axis == SHARED else whole // self.samples

    @property
    def row_bytes(self) -> int:
        """Of the inputs of one sample."""
        return self.positions * self.layer.groups * self.layer.inner * self.output.element_size()

    @property
    def largest(self) -> float:
        """The largest entry of what goes in."""
        return 1.0

    @property
    def kept(self) -> Tensor | None:
        """`(N, R)` bool: which positions the layer's parameters have a say in; None for all."""
        return None

    def chunks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """The inputs in pieces of about so many bytes, with the samples that they are of."""
        step = max(1, size // max(1, self.row_bytes))
        for start in range(0, self.samples, step):
            some = slice(start, min(start + step, self.samples))
            yield some, self.inputs(some.start, some.stop)

    def gradient(self, g: Tensor, stop: int) -> Tensor:
        """What the first samples give of the parameters' gradient, `(groups, out, inner)`."""
        b = self.slopes(g)[:stop]
        return torch.einsum("nrgo,nrgi->goi", b, self.inputs(0, stop).to(b.dtype))

    def axes(self) -> list[int]:
        """Dimensions along which samples may lie, the likeliest first, and `SHARED`."""
        found = [d for d, size in enumerate(self.lead) if size == self.samples or (d == 0 and size % self.samples == 0)]
        return [*found, SHARED]

    def by_sample(self, t: Tensor) -> Tensor:
        """`(N, ...)` from a tensor whose first dimensions are those of the output; the others keep their order."""
        if self.axis == SHARED:
            return t.unsqueeze(0).expand(self.samples, *t.shape)
        if self.axis == 0:
            return t.reshape(self.samples, len(t) // self.samples, *t.shape[1:])
        return t.movedim(self.axis, 0).unsqueeze(self.axis + 1)

    def derivative_by_sample(self, g: Tensor) -> Tensor:
        """The same for a derivative in the output."""
        return g.reshape(self.samples, *self.shape) if self.axis == SHARED else self.by_sample(g)


def with_one(a: Tensor, bias: bool) -> Tensor:
    """What goes in, with a 1 for the bias: `(..., inner)`."""
    return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1) if bias else a
