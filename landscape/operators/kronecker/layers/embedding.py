"""Embeddings: what goes in is a one-hot vector, so that the input side is a diagonal of counts."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.kronecker.layers.layer import Affine
from landscape.operators.kronecker.layers.use import Use


class EmbeddingUse(Use):
    """One call with tokens of any shape.

    Attributes:
        tokens: as they were given.
        padding: the row that gets no gradient, or None.
    """

    def __init__(
        self, layer: Affine, output: Tensor, shape: torch.Size, samples: int, tokens: Tensor, padding: int | None
    ) -> None:
        super().__init__(layer, output, shape, samples)
        self._tokens = tokens
        self._padding = None if padding is None else padding % layer.inner

    @property
    def lead(self) -> tuple[int, ...]:
        """Those of the tokens."""
        return tuple(self.shape[:-1])

    @property
    def tokens(self) -> Tensor:
        """`(N, R)`."""
        return self.by_sample(self._tokens).flatten(1)

    @property
    @override
    def kept(self) -> Tensor | None:
        return None if self._padding is None else self.tokens != self._padding

    def slopes(self, g: Tensor) -> Tensor:
        """Zero where the row of the table gets no gradient."""
        b, kept = self.derivative_by_sample(g).flatten(1, -2), self.kept
        return (b if kept is None else b * kept.unsqueeze(-1)).unsqueeze(2)

    def inputs(self, start: int, stop: int) -> Tensor:
        """One-hot rows; those who can work with `tokens`."""
        hot = torch.nn.functional.one_hot(self.tokens[start:stop].long(), self.layer.inner)
        return hot.unsqueeze(2).to(self.output.dtype)

    @override
    def gradient(self, g: Tensor, stop: int) -> Tensor:
        b = self.slopes(g)[:stop].flatten(0, 2)
        table = b.new_zeros(self.layer.inner, self.layer.out)
        return table.index_add_(0, self.tokens[:stop].reshape(-1), b).T.unsqueeze(0)
