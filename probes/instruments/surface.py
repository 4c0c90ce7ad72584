"""The probe of the loss surface: f on a plane through the parameters, beside its quadratic model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import MATVECS, NOTE, Instrument, values_of
from probes.session import Pairs
from probes.trace.layout import Field
from probes.trace.table import truncate

if TYPE_CHECKING:
    from torch import Tensor

_KEPT = ("x", "y", "values", "quadratic", "gradient", "curvature", "curvature_error", "evaluations", "matvecs")


@dataclass(frozen=True, kw_only=True)
class LossSurface(Instrument):
    """f on a grid of `points` x `points` on a plane through the parameters, every point over all of the data.

    Fields: x and y (points,), values (points, points) with `values[i, j]` = f(theta + x[i] d1 + y[j] d2), quadratic
    (points, points), the model f + g.d + d.Hd / 2; gradient (2,), curvature (2, 2) and curvature_error (2, 2) along the
    directions; length (2,) of the directions; lowest and highest value; evaluations, matvecs, note.

    Attributes:
        directions: "random" of the weights' scale (arXiv 1712.09913); "eigenvectors" of the two largest eigenvalues of
            the Hessian; "gradient", and the top eigenvector. The latter two are as long as the parameters, so that a
            span means the same for all.
        normalise: of random directions, "filter", "layer" or "none", see `landscape.surface.random_directions`.
        span: x and y reach from -span to span.
        statistics: of BatchNorm in eval mode, "keep" or "recompute" at each point.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import LossSurface, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("surface.h5") as trace:
        ...     found = measure_once(objective, [LossSurface(points=5)], trace, step=0)["surface"].values
        >>> found["values"].shape, bool(found["values"][2, 2] == found["quadratic"][2, 2])
        ((5, 5), True)
    """

    name: str = "surface"
    directions: Literal["random", "eigenvectors", "gradient"] = "random"
    normalise: Literal["filter", "layer", "none"] = "filter"
    span: float = 1.0
    points: int = 21
    statistics: Literal["keep", "recompute"] = "keep"
    needs: ClassVar[frozenset[str]] = frozenset({"graph"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(points=self.points >= 3)

    @property
    @override
    def pairs(self) -> Pairs | None:
        if self.directions == "random":
            return None
        return Pairs("hessian", k=2 if self.directions == "eigenvectors" else 1)

    @override
    def expected(self, context: Context) -> dict[str, float]:
        found = super().expected(context)
        return found | {"value": float(self.points**2), "hessian": found.get("hessian", 0.0) + 2.0, "gradient": 1.0}

    @override
    def fields(self, context: Context) -> Mapping[str, Field]:
        context.objective.only_whole("a surface")
        if context.objective.size < 2:
            raise ValueError(f"{self.name}: a plane needs two parameters")
        points, along = self.points, ("direction",)
        grid = partial(Field, (points, points), "float64", "loss", dims=("x", "y"))
        square = partial(Field, (2, 2), "float64", "loss", dims=("direction", "other"))
        return {
            "x": Field((points,), "float64", "", "coordinates along the first direction", dims=("x",)),
            "y": Field((points,), "float64", "", "coordinates along the second direction", dims=("y",)),
            "values": grid(description="f at theta + x[i] d1 + y[j] d2"),
            "quadratic": grid(description="f + g.d + d.Hd / 2 at the same points; nan without second derivatives"),
            "gradient": Field((2,), "float64", "loss", "slope along each direction", dims=along),
            "curvature": square(description="d_i^T H d_j"),
            "curvature_error": square(description="of each entry"),
            "length": Field((2,), "float64", "parameter", "norm of each direction", dims=along),
            "lowest": Field((), "float64", "loss", "least value on the grid"),
            "highest": Field((), "float64", "loss", "largest value on the grid; inf or nan where the loss is"),
            "evaluations": Field((), "int64", "evaluations", "points at which f was evaluated"),
            "matvecs": MATVECS,
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.surface import plane

        D = self._plane(context)
        found = plane(context.objective, D, span=self.span, points=self.points, statistics=self.statistics)
        values = np.asarray(found.values)
        kept = {name: np.asarray(value) for name, value in values_of(found, _KEPT).items()}
        ends = {"lowest": float(np.nanmin(values)), "highest": float(values.max())}
        return kept | ends | {"length": D.norm(dim=0).cpu().numpy(), "note": truncate(found.note, NOTE)}

    def _plane(self, context: Context) -> Tensor:
        """`(n, 2)`, the directions."""
        import torch

        from landscape.surface import gradient_direction, random_directions

        objective = context.objective
        if self.pairs is None:
            return random_directions(objective, 2, self.normalise, context.generator)
        D = context.eigenpairs(self.pairs).vectors.to(objective.device)
        if self.directions == "gradient":
            D = torch.linalg.qr(torch.cat([gradient_direction(objective), D[:, :1]], dim=1)).Q
        return D[:, :2] * objective.theta().norm()
