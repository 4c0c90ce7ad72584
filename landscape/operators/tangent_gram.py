"""J J^T on all outputs of the data, exact, assembled layer by layer in float64.

A Linear layer that is applied once per sample has the rows delta a^T, so its part of J J^T is the Gram matrix of the
back-propagated derivatives delta times, entry by entry, that of the inputs a: its weight's Jacobian is never formed.
Every other parameter's Jacobian is materialised, in as many columns at a time as fit, and its Gram matrix added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape.objective.batch import Batch
from landscape.objective.hooks import first_input, hooked
from landscape.objective.objective import Objective
from landscape.operators.jacobians import close, cotangents, jacobian, separable

# A Linear layer has cheaper rows than its Gram matrices when it has no more parameters than this beside its outputs.
_OVERHEAD = 4

T = TypeVar("T")

# Columns or rows that are handled in float64 at a time.
_BLOCK = 2048


@dataclass(frozen=True)
class Rows:
    """Which rows of J a batch has.

    Attributes:
        start, stop: its rows.
        shape: of the batch's outputs.
        kept: which of the flattened outputs have a row, as an index of them. Those whose target is ignored have none.
        weight: the batch's weight in f.
    """

    start: int
    stop: int
    shape: torch.Size
    kept: Tensor | slice
    weight: float

    def places(self, device: torch.device) -> Tensor:
        """The row of each flattened output, -1 for none."""
        places = torch.full((self.shape.numel(),), -1, device=device)
        places[self.kept] = torch.arange(self.start, self.stop, device=device)
        return places


def batches_with_rows(objective: Objective, rows: Mapping[int, Rows]) -> Iterator[tuple[Batch, Rows]]:
    """One pass over the batches that have rows; the others are not moved to the device."""
    for batch in objective.sweep(skip=lambda index: index not in rows):
        if batch.index in rows:
            yield batch, rows[batch.index]


def tangent_gram(objective: Objective, rows: dict[int, Rows], budget: int) -> Tensor:
    """J J^T, `(m, m)` float64 on the objective's device, symmetric. Batches that `rows` does not name are left out.

    budget: bytes for features and Jacobian columns beside the matrix.
    """
    m = max((r.stop for r in rows.values()), default=0)
    while True:
        K = torch.zeros(m, m, dtype=torch.float64, device=objective.device)
        paired = [layer for layer in _linear_layers(objective) if layer.pays()]
        try:
            for layers in _groups(paired, [layer.bytes(objective, m) for layer in paired], budget):
                _add_paired(K, objective, rows, layers)
            covered = {name for layer in paired for name in layer.names}
            _add_materialised(K, objective, rows, [name for name in objective.names if name not in covered], budget)
        except _NotPaired as found:  # a later batch uses a layer in another way than the first
            for name in found.args:
                objective.tuning.refuse(f"paired {name}")
            continue
        return _mirror(K)


def _mirror(K: Tensor) -> Tensor:
    """Only the lower triangle was summed up."""
    for start in range(0, len(K), _BLOCK):
        stop = min(start + _BLOCK, len(K))
        corner = K[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).T)
        K[start:stop, stop:] = K[stop:, start:stop].T
    return K


def _groups(items: Sequence[T], sizes: Sequence[int], budget: int) -> Iterator[list[T]]:
    """Items in order, together as long as they fit the budget; one alone in any case."""
    group: list[T] = []
    used = 0
    for item, size in zip(items, sizes, strict=True):
        if group and used + size > budget:
            yield group
            group, used = [], 0
        group.append(item)
        used += size
    if group:
        yield group


# -- Linear layers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """A Linear layer and those of its parameters that are chosen."""

    module: nn.Linear
    names: tuple[str, ...]
    weight: bool
    bias: bool

    @property
    def parameters(self) -> list[Tensor]:
        return [self.module.weight] * self.weight + [self.module.bias] * self.bias

    def pays(self) -> bool:
        """Whether Gram matrices are cheaper than the rows."""
        return self.module.out_features + _OVERHEAD < sum(p.numel() for p in self.parameters)

    def bytes(self, objective: Objective, m: int) -> int:
        return m * (self.module.out_features + self.module.in_features) * 2 * objective.dtype.itemsize


class _NotPaired(Exception):
    """Its arguments are names of parameters whose layers are used in another way."""


def _linear_layers(objective: Objective) -> list[_Layer]:
    """The Linear layers whose parameters are chosen, but for those known to be used in another way."""
    chosen = set(objective.names)
    layers = []
    for prefix, module in objective.module.named_modules():
        if type(module) is not nn.Linear:
            continue
        weight, bias = (f"{prefix}.{name}" if prefix else name for name in ("weight", "bias"))
        names = tuple(name for name in (weight, bias) if name in chosen)
        if names and not any(objective.tuning.refused(f"paired {name}") for name in names):
            layers.append(_Layer(module, names, weight in names, bias in names))
    return layers


def _add_paired(K: Tensor, objective: Objective, rows: dict[int, Rows], layers: list[_Layer]) -> None:
    inputs: list[list[Tensor]] = [[] for _ in layers]
    slopes: list[list[Tensor]] = [[] for _ in layers]
    samples: list[Tensor] = []
    count = 0
    with objective.measuring():
        for batch, own in batches_with_rows(objective, rows):
            outputs, features = _features(objective, batch, layers)
            width = outputs[0].numel()
            samples.append(torch.arange(len(outputs), device=K.device).repeat_interleave(width)[own.kept] + count)
            count += len(outputs)
            for i, (a, delta) in enumerate(features):
                inputs[i].append(a)
                slopes[i].append(delta[own.kept])
    of = torch.cat(samples)
    for i, layer in enumerate(layers):
        A, D = torch.cat(inputs[i]).double(), torch.cat(slopes[i]).double()
        gram = A @ A.T if layer.weight else torch.zeros(len(A), len(A), dtype=torch.float64, device=A.device)
        if layer.bias:
            gram += 1.0
        for start in range(0, len(K), _BLOCK):
            stop = min(start + _BLOCK, len(K))
            pairs = gram[of[start:stop]][:, of[:stop]]
            K[start:stop, :stop].addcmul_(D[start:stop] @ D[:stop].T, pairs)


def _features(objective: Objective, batch: Batch, layers: list[_Layer]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The outputs, and of each layer its inputs `(samples, in)` and derivatives `(outputs, out)`.

    Raises `_NotPaired` when a layer is not applied once per sample or when its parameters are used elsewhere as well:
    a reverse pass for random cotangents tells.
    """
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {layer.module: [] for layer in layers}

    def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        features = first_input(args, kwargs)
        assert features is not None
        calls[module].append((features, output))
        return output.clone()  # what follows may overwrite its input

    with hooked([layer.module for layer in layers], seen):
        outputs = objective.evaluate(batch).rows
    together = separable(objective, batch, outputs)
    _refuse(layers, [together and _once_per_sample(calls[layer.module], len(outputs)) for layer in layers])
    applied = [calls[layer.module][0] for layer in layers]
    slopes = _slopes(outputs, [z for _, z in applied])
    features = [(a.detach(), delta) for (a, _), delta in zip(applied, slopes, strict=True)]
    _confirm(objective, outputs, layers, features)
    dtype = objective.dtype
    return outputs, [(a.to(dtype), delta.reshape(-1, delta.shape[-1]).to(dtype)) for a, delta in features]


def _slopes(outputs: Tensor, hidden: list[Tensor]) -> list[Tensor]:
    """d output / d hidden of the same sample, `(samples, outputs per sample, width)`: one reverse pass per output."""
    columns = outputs.reshape(len(outputs), -1).unbind(1)
    passes = [
        torch.autograd.grad(column.sum(), hidden, retain_graph=True, allow_unused=True, materialize_grads=True)
        for column in columns
    ]
    return [torch.stack(grads, dim=1) for grads in zip(*passes, strict=True)]


def _confirm(
    objective: Objective, outputs: Tensor, layers: list[_Layer], features: list[tuple[Tensor, Tensor]]
) -> None:
    W = cotangents(outputs, len(outputs))
    parameters = [p for layer in layers for p in layer.parameters]
    expected = iter(torch.autograd.grad(outputs, parameters, W, allow_unused=True, materialize_grads=True))
    right = []
    for layer, (a, delta) in zip(layers, features, strict=True):
        slope = torch.einsum("nq,nqo->no", W.reshape(len(outputs), -1), delta)
        found = [slope.T @ a] * layer.weight + [slope.sum(0)] * layer.bias
        pairs = [(f, next(expected)) for f in found]
        right.append(all(close(f, e, outputs.dtype) for f, e in pairs))
    _refuse(layers, right)


def _once_per_sample(calls: list[tuple[Tensor, Tensor]], samples: int) -> bool:
    return len(calls) == 1 and all(a.ndim == 2 and len(a) == samples and z.requires_grad for a, z in calls)


def _refuse(layers: list[_Layer], right: list[bool]) -> None:
    wrong = [name for layer, fine in zip(layers, right, strict=True) if not fine for name in layer.names]
    if wrong:
        raise _NotPaired(*wrong)


# -- all other parameters --------------------------------------------------------------------------------------------


def _add_materialised(K: Tensor, objective: Objective, rows: dict[int, Rows], names: list[str], budget: int) -> None:
    column = max(1, len(K) * objective.dtype.itemsize)
    width = max(1, budget // (2 * column))  # columns that are held at a time
    slices = [objective.slices[name] for name in names]
    for group in _groups(names, [s.stop - s.start for s in slices], width):
        inner = objective.restrict(group)
        for first in range(0, inner.size, width):
            columns = slice(first, min(first + width, inner.size))
            J = _columns(inner, rows, columns, len(K), budget // 2)
            for block in J.split(_BLOCK, dim=1):
                _add_gram(K, block.double())


def _columns(objective: Objective, rows: dict[int, Rows], columns: slice, m: int, budget: int) -> Tensor:
    """Columns of J for all rows, `(m, columns)`."""
    J = torch.empty(m, columns.stop - columns.start, dtype=objective.dtype, device=objective.device)
    with objective.measuring():
        for batch, own in batches_with_rows(objective, rows):
            places = own.places(J.device)
            for first, piece in jacobian(objective, batch, budget):
                to = places[first : first + len(piece)]
                J[to[to >= 0]] = piece[to >= 0][:, columns]
    return J


def _add_gram(K: Tensor, J: Tensor) -> None:
    """K += J J^T, the lower triangle."""
    for start in range(0, len(K), _BLOCK):
        stop = min(start + _BLOCK, len(K))
        K[start:stop, :stop].addmm_(J[start:stop], J[:stop].T)
