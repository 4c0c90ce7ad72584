"""The probe of how alike two sets of data are: their gradients, and their Hessians times their own gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import TOLD, told, values_of
from probes.instruments.losses import NamedObjective, TwoLosses, check_parameters, is_objective, objective_of
from probes.trace.layout import Field

if TYPE_CHECKING:
    from landscape import Objective

_SETS = ("objective", "batch")


@dataclass(frozen=True, kw_only=True)
class GradientProducts(TwoLosses):
    """Gradient cosine and |H1 g1 - H2 g2| / (|H1 g1| + |H2 g2|) of two sets, beside what they are within one set.

    Samples of the same distribution differ as well, by noise: both sets are dealt into random parts of one size, and
    parts of different sets are held against parts of one set, the zero level (the quantities of Hessian alignment,
    Hemati et al., ICCV 2023).

    Fields, each with its standard error over groups of parts: cosine and distance (of a part of each set),
    cosine_within and distance_within (of two parts of one set), excess = distance - distance_within. And parts of each
    set, samples in each part, matvecs (a product of each).

    Attributes:
        first, second: "objective" (the monitor's), "batch" (the training loop's, `monitor(step, batch=...)`), or
            another `Objective` of the same model: a domain, a task.
        parts: of each set, an even number; 2 are halves, whose error is not known.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import GradientProducts, Trace, measure_once
        >>> east, north = eye(2).repeat_interleave(8, dim=0).split(8)
        >>> f = Objective(nn.Linear(2, 1), nn.MSELoss(), (east, 9 * ones(8, 1)))
        >>> probe = GradientProducts(second=f.on((north, 9 * ones(8, 1))))
        >>> with Trace.create("hgp.h5") as trace:
        ...     found = measure_once(f, [probe], trace, step=0)["hgp"].values
        >>> found["distance"] > 0.4, found["distance_within"]
        (True, 0.0)
    """

    name: str = "hgp"
    first: Literal["objective", "batch"] | Objective | NamedObjective = "objective"
    second: Literal["batch", "objective"] | Objective | NamedObjective = "batch"
    parts: int = 8
    losses: ClassVar[tuple[str, str]] = ("first", "second")
    takes: ClassVar[Mapping[str, float]] = {"gradient": 2.0, "hessian": 2.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first", "second"):
            if getattr(self, name) not in _SETS and not is_objective(getattr(self, name)):
                self._refuse(name, f"is one of {', '.join(_SETS)}, or an Objective, for the command module:function")
        if self.first == self.second:
            self._refuse("second", "is the first one again: its own parts are compared in any case")
        if self.parts % 2:
            self._refuse("parts", "must be an even number: two of each set make a group")

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"gradient", "graph"} | ({"batch"} & {self.first, self.second}))

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        """Raises `ValueError` for an objective of other parameters."""
        check_parameters(context, self.first, self.second)
        number = partial(Field, (), "float64", "")
        said = {
            "cosine": "cosine of the gradients of two parts, one of each set",
            "cosine_within": "of two parts of one set",
            "distance": "|H1 g1 - H2 g2| / (|H1 g1| + |H2 g2|) of two parts, one of each set",
            "distance_within": "of two parts of one set: the zero level",
            "excess": "distance - distance_within",
        }
        found = {name: number(text) for name, text in said.items()}
        found |= {f"{name}_stderr": number(f"standard error of {name}; inf for two parts") for name in said}
        counts = {
            "parts": Field((), "int64", "", "parts of each set"),
            "samples": Field((), "int64", "samples", "samples in each part"),
            "matvecs": Field((), "int64", "products", "Hessian products, each of one part"),
        }
        return found | counts | TOLD

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import gradient_products

        context.objective.only_whole("the products of Hessians and gradients")
        first, second = (objective_of(context, chosen, self.name) for chosen in (self.first, self.second))
        found = gradient_products(first, second, parts=self.parts, generator=context.generator)
        return values_of(found, self.fields(context).keys() - TOLD.keys()) | told(found)
