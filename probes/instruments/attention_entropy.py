"""The probe of how spread out attention is, head by head, beside its lower bound by spectral norms (2303.06296)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import NOTE, Instrument, pad
from probes.trace.layout import Field
from probes.trace.table import truncate

_MEANS = {
    "entropy": "entropy of attention, mean over positions and data",
    "least": "the lowest of a position",
    "bound": "mean of the lower bounds from each position's own input",
    "loose_bound": "mean of the lower bounds from spectral norms alone",
    "uniform": "mean of log(keys that a position sees): the most that it could be",
}


@dataclass(frozen=True, kw_only=True)
class AttentionEntropy(Instrument):
    """Entropies of attention by layer and head, with their lower bounds by spectral norms.

    Seen are nn.MultiheadAttention, F.scaled_dot_product_attention and softmax of products of queries and keys, so also
    transformers' models in "sdpa" and "eager" attention; other kernels are refused by name.

    Fields, (layers, heads) in nats (the fields' labels are the layers), nan where a layer has fewer heads: entropy,
    least, bound, loose_bound, uniform, see `landscape.representation.attention_entropy`; rows (layers,), the positions
    of all samples; of_weights (layers,), whether bounds are those of the weights, else of queries and keys; note.

    Attributes:
        layers: names or globs of modules, None is all.

    Example:
        >>> from torch import nn, randn, zeros
        >>> from landscape import Objective
        >>> from probes import AttentionEntropy, Trace, measure_once
        >>> model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        >>> objective = Objective(model, nn.MSELoss(), (randn(5, 3, 4), zeros(5, 3, 4)))
        >>> with Trace.create("attention.h5") as trace:
        ...     found = measure_once(objective, [AttentionEntropy()], trace, step=0)["attention-entropy"].values
        >>> found["entropy"].shape, bool((found["entropy"] >= found["bound"]).all()), found["rows"].tolist()
        ((1, 2), True, [15])
    """

    name: str = "attention-entropy"
    layers: Sequence[str] | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"features", "parameters"})
    takes: ClassVar = {"value": 7.0}

    def _heads(self, context: Context) -> dict[str, int]:
        """Of each layer, seen once."""
        from landscape.representation import attention_heads

        if "heads" not in context.memory:
            context.memory["heads"] = attention_heads(context.objective, self.layers)
        found: dict[str, int] = context.memory["heads"]
        return found

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        """Raises `ValueError` where no attention is seen."""
        heads = self._heads(context)
        names = tuple(heads)
        table = partial(
            Field, (len(names), max(heads.values())), "float64", "nats", labels=names, dims=("layer", "head")
        )
        each = partial(Field, (len(names),), labels=names, dims=("layer",))
        return {
            **{name: table(text) for name, text in _MEANS.items()},
            "rows": each("int64", "", "positions of all samples that see something"),
            "of_weights": each("bool", "", "whether bounds are of weights and inputs, else of queries and keys"),
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.representation import attention_entropy

        found, heads = attention_entropy(context.objective, self.layers), self._heads(context)
        if set(found) - set(heads):
            raise ValueError(f"attention in {', '.join(sorted(set(found) - set(heads)))} is not in every batch")
        most = max(heads.values())
        row: dict[str, Any] = {
            name: np.stack(
                [
                    pad(getattr(found[layer], name), (most,)) if layer in found else np.full(most, np.nan)
                    for layer in heads
                ]
            )
            for name in _MEANS
        }
        others = [layer for layer, one in found.items() if not one.of_weights]
        note = f"bounds of queries and keys, which weights alone do not make: {', '.join(others)}" if others else ""
        row["rows"] = np.array([found[layer].rows if layer in found else 0 for layer in heads])
        row["of_weights"] = np.array([layer in found and found[layer].of_weights for layer in heads])
        return row | {"note": truncate(note, NOTE)}
