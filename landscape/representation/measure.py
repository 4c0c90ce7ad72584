"""Ranks of all layers of a network: of their weights, and of what they are called with on an objective's data.

The model is run once as the objective says, without gradients, and left as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from landscape.objective import state
from landscape.objective.hooks import first_input, hooked
from landscape.objective.objective import Objective
from landscape.representation.layers import At, Layer, Mask, counted_rows, layers_of
from landscape.representation.rows import ActivationRanks, Rows
from landscape.representation.spectrum import MatrixRanks, matrix_ranks

LIMIT = 4096  # a Gram matrix of 128 MiB, and its eigenvalues half a minute of one core


@dataclass(frozen=True)
class LayerRanks:
    """One layer.

    Attributes:
        weight: ranks of its weight `(out, the rest)`; None without one, or where both sides exceed the limit.
        activations: of its inputs (or outputs) over the data; None where it was not called with floating numbers.
    """

    weight: MatrixRanks | None
    activations: ActivationRanks | None


def layer_ranks(
    objective: Objective,
    layers: Iterable[str] | str | None = None,
    *,
    at: At = "input",
    activations: bool = True,
    mask: Mask = None,
    limit: int = LIMIT,
) -> dict[str, LayerRanks]:
    """Effective and stable ranks, nuclear norms and dormant units of layers, by their names.

    A layer's activations are by default what it is *called with*: behind the nonlinearity before it, whether that is a
    module or not, and of the first layer the data. They are one matrix over all of the data (of all ranks), a row for
    every sample and position; of convolutions channels are the columns. They are not centred. All rows count the same,
    whatever the loss makes of them. A tied weight is measured at each place, a parametrised one as it is used.

    Costs a forward pass, and for a layer of C units 4 C^2 operations a row in float64 and the eigenvalues of two
    matrices of C rows. No more than these is held.

    Args:
        layers: names or globs of modules, those without weights too (`"*.act"` with `at="output"`); default all that
            have a weight of two dimensions or more.
        at: "input" or "output" of the layers.
        activations: False looks at weights only, without a pass.
        mask: `mask(inputs, targets)` -> which positions count, a tensor of the leading dimensions of the activations;
            default an `attention_mask` or `key_padding_mask` among the inputs. Layers of other positions have all rows.
        limit: of a layer's units, and of the smaller side of a weight: beyond it there are no ranks.

    Raises:
        ValueError: no such layer; entries that are not finite; units that change between calls; a mask that fits no
            layer.
        TypeError: the model is sharded.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.representation import layer_ranks
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])), model[0].bias.zero_()
        >>> found = layer_ranks(Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.ones(2, 1))))["2"]
        >>> round(found.activations.ranks.effective_rank, 3), round(found.activations.dormant(), 3)
        (2.0, 0.333)
    """
    if at not in ("input", "output"):
        raise ValueError(f'at is "input" or "output" of the layers, not {at!r}')
    objective.only_whole("the rank of layers")
    chosen = layers_of(objective.module, layers)
    streams, weights = objective.agreed(lambda: _one_pass(objective, chosen, at, activations, mask, limit))
    every = {name: rows.merged(objective.ranks) for name, rows in streams.items()}

    def spans(name: str) -> ActivationRanks | None:
        rows = every.get(name)
        try:
            return rows.found() if rows is not None and rows.count else None
        except ValueError as error:
            raise ValueError(f"the {at}s of layer {name!r}: {error}") from None

    return objective.agreed(lambda: {name: LayerRanks(weights[name], spans(name)) for name in chosen})


def _one_pass(
    objective: Objective, chosen: dict[str, Layer], at: At, activations: bool, mask: Mask, limit: int
) -> tuple[dict[str, Rows], dict[str, MatrixRanks | None]]:
    """This rank's rows of each layer, and the ranks of the weights."""
    streams = {name: Rows(limit) for name in chosen if activations}
    names: dict[nn.Module, list[str]] = {}
    for name, layer in chosen.items():
        names.setdefault(layer.module, []).append(name)
    counted: Tensor | None = None
    fits = masked = False

    def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal fits
        value = first_input(args, kwargs) if at == "input" else _first(output)
        for name in names[module]:
            X = chosen[name].rows(value, at, counted)
            if X is None:
                continue
            fits |= counted is not None and value is not None and X.numel() < value.numel()
            try:
                streams[name].add(X)
            except ValueError as error:
                raise ValueError(f"the {at}s of layer {name!r}: {error}") from None

    with objective.measuring(derivative=False), torch.no_grad():
        if activations:
            with hooked(names, seen):
                for batch in objective.sweep():
                    if not batch.padding:
                        counted = counted_rows(batch, mask)
                        masked |= counted is not None and not bool(counted.all())
                        objective.evaluate(batch)
        if mask is not None and masked and not fits:
            raise ValueError(
                f"mask returns the shape {tuple(counted.shape) if counted is not None else ()}, which are the leading "
                "dimensions of no layer's activations: it is to say of each (sample, position) whether it counts"
            )
        return streams, _weights(objective, chosen, limit)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) and output else output


def _weights(objective: Objective, chosen: dict[str, Layer], limit: int) -> dict[str, MatrixRanks | None]:
    """Of each layer; a tied weight is looked at once. Parametrisations that update themselves are left as they were."""
    known: dict[int, MatrixRanks] = {}
    found: dict[str, MatrixRanks | None] = {}
    with state.borrowed_buffers(objective.module), parametrize.cached():  # which keeps all weights that it makes
        for name, layer in chosen.items():
            found[name] = None
            if layer.weight is None or min((A := layer.matrix()).shape) > limit:
                continue
            try:
                key = id(layer.tensor())
                found[name] = known[key] = known.get(key) or matrix_ranks(A)
            except ValueError as error:
                raise ValueError(f"the weight of layer {name!r}: {error}") from None
    return found
