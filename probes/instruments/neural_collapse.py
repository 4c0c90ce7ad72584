"""The probe of neural collapse (arXiv 2602.16642)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import Instrument, values_of
from probes.trace.layout import Field

# As in `landscape.collapse.CollapseMetrics`: name -> (units, description).
_FLOATS = {
    "nc0": ("parameter", "||W^T 1||, the norm of the sum of the last layer's rows"),
    "nc0_normalized": ("", "||W^T 1|| / ||W||"),
    "nc1": ("", "tr(Sigma_W Sigma_B^+) / classes"),
    "nc1_traces": ("", "tr(Sigma_W) / tr(Sigma_B)"),
    "cdnv": ("", "class-distance normalised variance, mean over pairs"),
    "nc2": ("", "distance of the class means' Gram matrix to the simplex"),
    "nc2_norms": ("", "deviation / average of the norms of the centred class means"),
    "nc2_angles": ("", "mean |cos + 1/(P-1)| between centred class means"),
    "nc2_weight": ("", "distance of W W^T to the simplex"),
    "nc2_weight_norms": ("", "deviation / average of the norms of W's rows"),
    "nc2_weight_angles": ("", "mean |cos + 1/(K-1)| between W's rows"),
    "nc2_product": ("", "distance of W M^T to the simplex (Zhu's NC3)"),
    "nc3": ("", "distance of W / ||W|| to the centred class means M / ||M||"),
    "nc4": ("", "share of samples on which W h and the nearest class mean agree; nan without the second pass"),
    "nc4_bias": ("", "the same with the bias"),
    "accuracy": ("", "share of samples that W h + b gets right; nan without the second pass"),
    "nearest_accuracy": ("", "share of samples that the nearest class mean gets right"),
    "bias_collapse": ("output", "||b + W mu_G||"),
    "bias_sum": ("parameter", "|sum of b|; nan without a bias"),
    "smallest_singular": ("parameter", "smallest singular value of W"),
    "weight_norm": ("parameter", "||W||"),
}
_INTEGERS = {
    "rank": "directions in which class means differ",
    "classes": "classes present in the data",
    "samples": "samples measured",
}


@dataclass(frozen=True, kw_only=True)
class NeuralCollapse(Instrument):
    """NC0 to NC4 and their variants on the objective's data, in the objective's mode.

    Fields: all numbers of `landscape.collapse.CollapseMetrics` by their names. The features are the inputs of the last
    Linear layer; measure in evaluation mode as the paper does, `Objective(..., mode="eval")`.

    Attributes:
        head: name of the last layer; None finds the one Linear whose output is the model's.
        num_classes: None is the head's number of rows.
        nc4: False leaves out the agreement with the nearest class mean, and the accuracies.

    Example:
        >>> from torch import eye, nn, tensor
        >>> from landscape import Objective
        >>> from probes import NeuralCollapse, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), (eye(2), tensor([0, 1])))
        >>> with Trace.create("neural-collapse.h5") as trace:
        ...     found = measure_once(objective, [NeuralCollapse()], trace, step=0)["neural-collapse"].values
        >>> f"{found['nc1']:.3f}"
        '0.000'
    """

    name: str = "neural-collapse"
    head: str | None = None
    num_classes: int | None = None
    nc4: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"features", "parameters"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(num_classes=self.num_classes is None or self.num_classes >= 2)

    @override
    def expected(self, context: Context) -> dict[str, float]:
        """A forward pass; a second one for `nc4` where the features do not fit into memory."""
        return {"value": 1.5 if self.nc4 else 1.2}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        floats = {name: Field((), "float64", units, text) for name, (units, text) in _FLOATS.items()}
        return floats | {name: Field((), "int64", "", text) for name, text in _INTEGERS.items()}

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.collapse import measure

        found = measure(context.objective, head=self.head, num_classes=self.num_classes, nc4=self.nc4)
        return values_of(found, self.fields(context))
