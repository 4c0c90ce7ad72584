"""The probe of the loss surface: f on a plane through the parameters, beside its quadratic model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.hashes import hash_of
from probes.instruments.base import MATVECS, NOTE, values_of
from probes.instruments.networks import OfNetworks
from probes.instruments.stations import beside_theta, told_buffers
from probes.session import Pairs
from probes.trace.layout import Field
from probes.trace.table import truncate

if TYPE_CHECKING:
    import torch

    from landscape import Objective
    from landscape.surface import Frame
    from landscape.surface.values import Spread

_KEPT = ("x", "y", "values", "quadratic", "gradient", "curvature", "curvature_error", "evaluations", "matvecs")
_MARGIN = 1.2  # how far the plane reaches beyond the farthest of the networks that it goes through
_RECOMPUTED = "running statistics are those of one pass over the data at each point"


@dataclass(frozen=True, kw_only=True)
class LossSurface(OfNetworks):
    """f on a grid of `points` x `points` on a plane through the parameters, every point over all of the data.

    Fields: x and y (points,), values (points, points) with `values[i, j]` = f(theta + x[i] d1 + y[j] d2), quadratic
    (points, points), the model f + g.d + d.Hd / 2; gradient (2,), curvature (2, 2) and curvature_error (2, 2) along the
    directions; length (2,) of the directions; lowest and highest value; evaluations, matvecs, note. Of networks that
    the plane goes through: path (networks, 2), their projections; path_step and path_distance (networks,), how far off
    the plane they are; explained (2,), the share of their variance along each direction, nan without any. Two networks
    make a line, which has one direction and no y.

    Points are kept in the trace as they are found, so that an interrupted measurement goes on where it was.

    Attributes, besides those of `OfNetworks`:
        directions: "random" of the weights' scale (arXiv 1712.09913); "eigenvectors" of the two largest eigenvalues of
            the Hessian; "gradient", and the top eigenvector. The latter two are as long as the parameters, so that a
            span means the same for all. "trajectory", the principal directions of the networks in `through` about the
            last of them; "between", the line or plane through two or three networks. These are scaled so that a span of
            1 reaches beyond all of them.
        normalise: of random directions, "filter", "layer" or "none", see `landscape.surface.random_directions`.
        span: x and y reach from -span to span.
        statistics: of BatchNorm in eval mode, "keep" or "recompute" at each point; "auto": recompute where the plane
            goes through several networks, whose statistics differ.
        spread: evaluates points in other processes, see `landscape.surface.values.Spread`.

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
    directions: Literal["random", "eigenvectors", "gradient", "trajectory", "between"] = "random"
    normalise: Literal["filter", "layer", "none"] = "filter"
    span: float = 1.0
    points: int = 21
    statistics: Literal["auto", "keep", "recompute"] = "auto"
    spread: Spread | None = dataclasses.field(default=None, compare=False, repr=False)
    needs: ClassVar[frozenset[str]] = frozenset({"graph"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(points=self.points >= 3)

    @property
    @override
    def of_all(self) -> bool:
        return self.directions in ("trajectory", "between")

    @property
    @override
    def pairs(self) -> Pairs | None:
        if self.directions not in ("eigenvectors", "gradient"):
            return None
        return Pairs("hessian", k=2 if self.directions == "eigenvectors" else 1)

    @property
    def _axes(self) -> int:
        return 1 if self.directions == "between" and len(self._stations) == 2 else 2

    @property
    def _statistics(self) -> Literal["keep", "recompute"] | None:
        """As `plane` takes them; it cannot know that the plane goes on from the model's own parameters to others'."""
        if self.statistics == "auto":
            return "recompute" if self.of_all else None
        return self.statistics

    @override
    def expected(self, context: Context) -> dict[str, float]:
        found, k = super().expected(context), self._axes
        return found | {"value": float(self.points**k), "hessian": found.get("hessian", 0.0) + k, "gradient": 1.0}

    @override
    def fields(self, context: Context) -> Mapping[str, Field]:
        context.objective.only_whole("a surface")
        k = self._axes
        if context.objective.size < k:
            raise ValueError(f"{self.name}: a plane needs two parameters")
        if self.of_all and len(self._stations) < 2:
            raise ValueError(f"{self.name}: directions={self.directions!r} needs the parameters of several networks")
        axis = partial(Field, (self.points,), "float64", "")
        grid = partial(Field, (self.points,) * k, "float64", "loss", dims=("x", "y")[:k])
        along = partial(Field, (k,), "float64", dims=("direction",))
        square = partial(Field, (k, k), "float64", "loss", dims=("direction", "other"))
        network = partial(Field, dims=("network",))
        second = {"y": axis("coordinates along the second direction", dims=("y",))}
        return {
            "x": axis("coordinates along the first direction", dims=("x",)),
            **(second if k == 2 else {}),
            "values": grid(description="f at theta + x[i] d1 + y[j] d2"),
            "quadratic": grid(description="f + g.d + d.Hd / 2 at the same points; nan without second derivatives"),
            "gradient": along("loss", "slope along each direction"),
            "curvature": square(description="d_i^T H d_j"),
            "curvature_error": square(description="of each entry"),
            "length": along("parameter", "norm of each direction"),
            "lowest": Field((), "float64", "loss", "least value on the grid"),
            "highest": Field((), "float64", "loss", "largest value on the grid; inf or nan where the loss is"),
            "path": Field((None, k), "float64", "", "projections of other networks", dims=("network", "direction")),
            "path_step": network((None,), "int64", "step", "their steps"),
            "path_distance": network((None,), "float64", "parameter", "how far off the plane they are"),
            "explained": along("", "share of their variance along each direction; nan without any"),
            "evaluations": Field((), "int64", "evaluations", "points at which f was evaluated"),
            "matvecs": MATVECS,
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        import torch

        from landscape.spectra import RunningEstimate
        from landscape.surface import line, plane

        where = self._place(context)
        shape = (self.points,) * where.D.shape[1]
        centre = context.objective.theta() if where.centre is None else where.centre
        what = {"D": where.D, "centre": centre, "grid": (self.span, shape, self._statistics)}
        of = hash_of(beside_theta(context.objective) | what)
        unfinished = context.unfinished("values", of, int(np.prod(shape)))

        def keep(done: int, total: int, values: torch.Tensor) -> bool | None:
            unfinished.keep(values.numpy())
            lowest = RunningEstimate(float(values.nan_to_num(nan=torch.inf).min()), 0.0, "lowest f", "points")
            return None if context.callback is None else context.callback(done, total, lowest)

        found = (line if len(shape) == 1 else plane)(
            context.objective,
            where.D,
            span=self.span,
            points=self.points,
            centre=centre,
            statistics=self._statistics,
            known=unfinished.tensor(shape),
            callback=keep,
            spread=self.spread,
        )
        values = np.asarray(found.values)
        kept = {name: np.asarray(value) for name, value in values_of(found, _KEPT).items() if value is not None}
        ends = {"lowest": float(np.nanmin(values)), "highest": float(values.max())}
        recomputed = "" if found.statistics == "keep" else _RECOMPUTED
        buffers = told_buffers(context.objective, self._stations, context.step)
        note = truncate("; ".join(filter(None, (found.note, recomputed, buffers))), NOTE)
        return {**kept, **ends, **where.path} | {"length": where.D.norm(dim=0).cpu().numpy(), "note": note}

    def _place(self, context: Context) -> _Place:
        import torch

        from landscape.surface import between_frame, gradient_direction, random_directions, trajectory_frame

        objective = context.objective
        if self.of_all:
            self._refuse_kept_statistics(objective)
            stations = self._stations
            frame = (trajectory_frame if self.directions == "trajectory" else between_frame)(
                objective, [one.theta for one in stations]
            )
            return _through(frame, [one.step for one in stations])
        if self.pairs is None:
            return _Place(random_directions(objective, 2, self.normalise, context.generator))
        D = context.eigenpairs(self.pairs).vectors.to(objective.device)
        if self.directions == "gradient":
            D = torch.linalg.qr(torch.cat([gradient_direction(objective), D[:, :1]], dim=1)).Q
        return _Place(D[:, :2] * objective.theta().norm())

    def _refuse_kept_statistics(self, objective: Objective) -> None:
        from landscape.objective.running import uses_running_statistics

        if self.statistics == "keep" and uses_running_statistics(objective):
            raise ValueError(
                f"{self.name}: statistics='keep' is not possible between networks that read running statistics "
                "(BatchNorm in eval mode): each has its own"
            )


class _Place(NamedTuple):
    """Where a plane lies, and the fields of the networks that it goes through."""

    D: torch.Tensor
    centre: torch.Tensor | None = None
    path: Mapping[str, Any] = MappingProxyType(
        {
            "path": np.empty((0, 2)),
            "path_step": np.empty(0, dtype=np.int64),
            "path_distance": np.empty(0),
            "explained": np.full(2, np.nan),
        }
    )


def _through(frame: Frame, steps: Sequence[int]) -> _Place:
    """The plane of the frame, in units in which all of its networks lie within 1."""
    scale = _MARGIN * float(frame.coordinates.abs().max())
    path = {
        "path": frame.coordinates.numpy() / scale,
        "path_step": np.array(steps, dtype=np.int64),
        "path_distance": frame.distances.numpy(),
        "explained": frame.explained.numpy(),
    }
    return _Place(frame.directions * scale, frame.centre, path)
