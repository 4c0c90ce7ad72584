"""Running means of K-FAC's factors, and the operators whose blocks are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from typing_extensions import override

from landscape.operators.kronecker.blocks import Block
from landscape.operators.kronecker.collected import Collected
from landscape.operators.kronecker.ekfac import EKFAC
from landscape.operators.kronecker.kfac import KFAC
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.measured import MeasuredOperator
from landscape.operators.kronecker.passes import Passes


class Means:
    """Running means of the factors of each layer.

    Attributes:
        factors: beta-weighted sums of (B, A), not yet divided by their weights.
        count: how often they were added to.
    """

    def __init__(self, beta: float) -> None:
        self.beta, self.count = beta, 0
        self.factors: dict[Layer, tuple[Tensor, Tensor]] = {}

    def add(self, factors: Mapping[Layer, tuple[Tensor, Tensor]]) -> dict[Layer, tuple[Tensor, Tensor]]:
        """The means after these; a layer that is not among them counts as 0, one that is new as 0 until now."""
        self.count += 1
        kept = {layer: (self.beta * B, self.beta * A) for layer, (B, A) in self.factors.items()}
        for layer, (B, A) in factors.items():
            old = kept.get(layer, (0.0, 0.0))
            kept[layer] = old[0] + (1.0 - self.beta) * B, old[1] + (1.0 - self.beta) * A
        self.factors = kept
        weight = 1.0 - self.beta**self.count
        return {layer: (B / weight, A / weight) for layer, (B, A) in kept.items()}


class Running(MeasuredOperator):
    """Blocks of the running means, which the factors of this measurement are added to."""

    means: Means

    @override
    def _blocks(self, passes: Passes, found: Collected) -> list[Block]:
        return super()._blocks(passes, replace(found, factors=self.means.add(found.factors)))


class _RunningKFAC(Running, KFAC):
    pass


class _RunningEKFAC(Running, EKFAC):
    pass


KINDS: dict[str, type[Running]] = {"kfac": _RunningKFAC, "ekfac": _RunningEKFAC}
