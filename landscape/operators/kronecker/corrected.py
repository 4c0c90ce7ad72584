"""The diagonal of the exact block in a Kronecker basis (1806.03884, equation 10), summed over the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from landscape.memory import budget
from landscape.operators.kronecker.blocks import Spectrum
from landscape.operators.kronecker.factors import PIECE
from landscape.operators.kronecker.layers.embedding import EmbeddingUse
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.layers.use import Use
from landscape.operators.kronecker.passes import Passes
from landscape.precision import accurate

_SHARE = 4  # of the budget for inputs in terms of the eigenvectors, which each column needs again


def corrected(passes: Passes, bases: Mapping[Layer, Spectrum]) -> dict[Layer, Tensor]:
    """S_ij = (1 / M) sum over samples of (Q_B^T dW Q_A)_ij^2, `(groups, out, inner)` float64, by one pass. Collective.

    dW is the gradient of one sample, its positions summed up.
    """
    objective = passes.objective

    def work() -> tuple[dict[Layer, Tensor], float]:
        sums = {
            layer: torch.zeros(basis.values.shape, dtype=objective.dtype, device=objective.device)
            for layer, basis in bases.items()
        }
        weight = 0.0
        with objective.measuring():
            for seen in passes.batches():
                room = budget(objective.memory, objective.device) // _SHARE
                places = {layer: where for layer, where in seen.by_layer().items() if layer in bases}
                turned: dict[Layer, _Dense | _Tables] = {}
                for layer, where in places.items():
                    uses = [seen.uses[i] for i in where]
                    tables = [use for use in uses if isinstance(use, EmbeddingUse)]
                    turned[layer] = _Tables(tables, bases[layer]) if tables else _Dense(uses, bases[layer], room)
                    room -= turned[layer].bytes
                for slopes in seen.slopes():
                    for layer, where in places.items():
                        turned[layer].add_squares(sums[layer], [slopes[i] for i in where])
                weight += seen.weight
        return sums, weight

    sums, weight = objective.agreed(work)
    ranks = objective.ranks
    weight = sum(ranks.gathered(weight))
    return {layer: accurate(objective.normalise(ranks.sum(S), weight)) for layer, S in sums.items()}


class _Dense:
    """The inputs of a layer's uses on one batch in terms of eigenvectors, kept where there is room."""

    def __init__(self, uses: Sequence[Use], basis: Spectrum, room: int) -> None:
        self._uses, self._basis = uses, basis
        row = sum(use.row_bytes for use in uses)
        self._step = max(1, PIECE // max(1, row))
        self._kept = list(self._pieces()) if row * uses[0].samples <= room else None
        self.bytes = row * uses[0].samples if self._kept is not None else 0

    def _pieces(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """Samples, and of each use `(some, R, groups, inner)`."""
        N = self._uses[0].samples
        for start in range(0, N, self._step):
            some = slice(start, min(start + self._step, N))
            yield some, [self._basis.A.into(use.inputs(some.start, some.stop)) for use in self._uses]

    def add_squares(self, total: Tensor, slopes: Sequence[Tensor]) -> None:
        """Adds the squares of the gradients of one column."""
        turned = [self._basis.B.into(b) for b in slopes]
        for some, inputs in self._kept if self._kept is not None else self._pieces():
            parts = [b[some] for b in turned]
            if (
                len(parts) == 1 and parts[0].shape[1] == 1
            ):  # at one position squares of products are products of squares
                total += torch.einsum("ngo,ngi->goi", parts[0][:, 0].square(), inputs[0][:, 0].square())
                continue
            gradients = [torch.einsum("nrgo,nrgi->ngoi", b, a) for b, a in zip(parts, inputs, strict=True)]
            total += torch.stack(gradients).sum(0).square().sum(0)


class _Tables:
    """The same for an embedding, whose inputs have the unit vectors for eigenvectors."""

    bytes = 0

    def __init__(self, uses: Sequence[EmbeddingUse], basis: Spectrum) -> None:
        self._basis = basis
        width = basis.layer.inner
        first = torch.arange(uses[0].samples, device=uses[0].tokens.device).unsqueeze(1) * width
        rows = torch.cat([(first + use.tokens).reshape(-1) for use in uses])
        rows, self._place = rows.unique(return_inverse=True)  # each token of a sample once
        self._tokens = rows % width

    def add_squares(self, total: Tensor, slopes: Sequence[Tensor]) -> None:
        """Adds the squares of the gradients of one column."""
        b = torch.cat([self._basis.B.into(b).flatten(0, 2) for b in slopes])
        gradients = b.new_zeros(len(self._tokens), b.shape[1]).index_add_(0, self._place, b)
        total[0].T.index_add_(0, self._tokens, gradients.square())
