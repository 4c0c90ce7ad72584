"""The probe of how many directions weights and activations of each layer have, and how many units sleep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import NOTE, Instrument
from probes.trace.layout import Field
from probes.trace.table import truncate

if TYPE_CHECKING:
    from landscape.representation import LayerRanks


@dataclass(frozen=True, kw_only=True)
class EffectiveRank(Instrument):
    """Effective ranks of the weights and activations of every layer, with nuclear norms and the share of dormant units.

    What a layer is called with, over all of the objective's data, is one matrix: a row for each sample and position.

    Fields, one entry per layer (the fields' labels are their names), nan where there is nothing of that kind:
    effective_rank, stable_rank and nuclear (the nuclear norm of rows of length 1 / sqrt(min(rows, units) rows)) of the
    activations; dormant and nearly_dormant, shares of the units whose mean |activation|, relative to the layer's, is 0
    and at most tau; rows and units; weight_effective_rank, weight_stable_rank, weight_nuclear_norm, weight_norm (the
    largest singular value) and weight_rank, the largest rank that it could have. And note.

    Attributes:
        layers: names or globs of modules, None is all with a weight of two dimensions or more.
        at: of activations, the layers' "input" (behind the nonlinearity before it) or "output".
        squared: effective ranks of squared singular values, else of these themselves (Roy and Vetterli).
        tau: 0.025 as in Sokar et al. 2023.
        limit: of units; a Gram matrix of wider layers is not made.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import EffectiveRank, Trace, measure_once
        >>> objective = Objective(nn.Linear(4, 1), nn.MSELoss(), (eye(4), ones(4, 1)))
        >>> with Trace.create("ranks.h5") as trace:
        ...     found = measure_once(objective, [EffectiveRank()], trace, step=0)["effective-rank"].values
        >>> found["effective_rank"].round(3).tolist(), found["weight_effective_rank"].round(3).tolist()
        ([4.0], [1.0])
    """

    name: str = "effective-rank"
    layers: Sequence[str] | None = None
    at: Literal["input", "output"] = "input"
    squared: bool = False
    tau: float = 0.025
    limit: int = 4096
    needs: ClassVar[frozenset[str]] = frozenset({"features", "parameters"})
    takes: ClassVar = {"value": 5.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(tau=0 <= self.tau < np.inf, limit=self.limit >= 1)

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        from landscape.representation.layers import layers_of

        names = tuple(layers_of(context.objective.module, self.layers))
        each = partial(Field, (len(names),), "float64", labels=names, dims=("layer",))
        of = "squared singular values" if self.squared else "singular values"
        entropy = f"exp of the entropy of {of} / their sum"
        return {
            "effective_rank": each("", f"{entropy}, of the layer's {self.at}s over the data"),
            "stable_rank": each("", "(Frobenius norm / spectral norm)^2 of these"),
            "nuclear": each("", "nuclear norm of these with rows of length 1 / sqrt(min(rows, units) rows)"),
            "dormant": each("", "share of units that are 0 on all of the data"),
            "nearly_dormant": each("", f"share of units with mean |activation| <= {self.tau:g} of the layer's"),
            "rows": each("", "samples and positions: rows of the matrix of activations"),
            "units": each("", "its columns"),
            "weight_effective_rank": each("", f"{entropy}, of the weight"),
            "weight_stable_rank": each("", "(Frobenius norm / spectral norm)^2 of the weight"),
            "weight_nuclear_norm": each("parameter", "sum of the weight's singular values"),
            "weight_norm": each("parameter", "the largest of them"),
            "weight_rank": each("", "the largest rank that the weight could have"),
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from torch.nn import Embedding

        from landscape.representation import layer_ranks
        from landscape.representation.layers import layers_of

        found = layer_ranks(context.objective, self.layers, at=self.at, limit=self.limit)
        rows = [self._of(one) for one in found.values()]
        row: dict[str, Any] = {name: np.array([one.get(name, np.nan) for one in rows]) for name in self.fields(context)}
        modules = {name: layer.module for name, layer in layers_of(context.objective.module, self.layers).items()}
        silent = [name for name, one in found.items() if one.activations is None]
        if self.at == "input":  # integers, of which nothing is expected
            silent = [name for name in silent if not isinstance(modules[name], Embedding)]
        wide = [name for name, one in zip(found, rows, strict=True) if one.get("units", 0) > self.limit]
        said = [f"not called with floating numbers: {', '.join(silent)}"] if silent else []
        said += [f"more units than limit={self.limit}: {', '.join(wide)}"] if wide else []
        return row | {"note": truncate("; ".join(said), NOTE)}

    def _of(self, layer: LayerRanks) -> dict[str, float]:
        entropy, found = f"effective_rank{'_squared' * self.squared}", dict[str, float]()
        if (active := layer.activations) is not None:
            found |= {"effective_rank": getattr(active.ranks, entropy), "stable_rank": active.ranks.stable_rank}
            found |= {"nuclear": active.nuclear_ratio, "rows": active.ranks.rows, "units": active.ranks.columns}
            found |= {"dormant": active.dormant(), "nearly_dormant": active.dormant(self.tau)}
        if (weight := layer.weight) is not None:
            found |= {"weight_effective_rank": getattr(weight, entropy), "weight_stable_rank": weight.stable_rank}
            found |= {"weight_nuclear_norm": weight.nuclear_norm, "weight_norm": weight.largest}
            found |= {"weight_rank": min(weight.rows, weight.columns)}
        return found
