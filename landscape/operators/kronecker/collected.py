"""The factors of all layers over the data of all ranks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landscape.operators.kronecker.factors import Share, Sums, collect
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.passes import Passes


@dataclass(frozen=True)
class Collected:
    """What one pass over the data gives.

    Attributes:
        factors: of each layer (B, A), in the order of their first parameters.
        calls: of each layer, in one pass over a batch: the most there were.
        weight: of all batches.
        signs: terms of a sample went together under random signs, in some batch.
        mixed: a layer has taken statistics of the whole batch.
    """

    factors: dict[Layer, tuple[Tensor, Tensor]]
    calls: dict[Layer, int]
    weight: float
    signs: bool
    mixed: bool


def collected(passes: Passes, share: Share, limit: int) -> Collected:
    """One pass. Collective."""
    objective = passes.objective
    flags = {"signs": False, "mixed": False}
    calls: dict[Layer, int] = {}

    def work() -> tuple[dict[Layer, Sums], float]:
        sums: dict[Layer, Sums] = {}
        weight = 0.0
        with objective.measuring():
            for seen in passes.batches():
                for layer, places in seen.by_layer().items():
                    calls[layer] = max(calls.get(layer, 0), len(places))
                    if layer not in sums:
                        sums[layer] = Sums.blank(layer, share, limit, objective.dtype, objective.device)
                collect(seen, sums)
                weight += seen.weight
                flags["signs"] |= seen.signs
                flags["mixed"] |= seen.mixed
        return sums, weight

    sums, weight = objective.agreed(work)
    ranks = objective.ranks
    weight = sum(ranks.gathered(weight))
    everywhere = ranks.gathered(calls)
    most = {layer: max(found.get(layer, 0) for found in everywhere) for found in everywhere for layer in found}
    first = {name: s.start for name, s in objective.slices.items()}
    factors = {}
    for layer in sorted(most, key=lambda layer: min(first[name] for name in layer.names)):
        own = sums.get(layer) or Sums.blank(layer, share, limit, objective.dtype, objective.device)
        A, B, mass = (ranks.sum(t) for t in own.tensors())
        factors[layer] = objective.normalise(B, weight), A / max(float(mass), 1e-300)
    if not factors:
        objective.normalise(0.0, weight)  # says so when there are no loss terms
    return Collected(factors, most, weight, *(ranks.any(flag) for flag in flags.values()))
