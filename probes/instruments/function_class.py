"""The probe of function classes (arXiv 2410.12455): the rows of a trajectory, from which all conditions follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import SLOPE, Instrument
from probes.instruments.recording import Recording, tensor_print
from probes.seeds import derive_seed
from probes.trace.layout import Array, Field

if TYPE_CHECKING:
    import torch

    from landscape.regularity import Trajectory
    from probes.instruments.stations import Station
    from probes.trace.records import Records

_ROUNDING = Field((), "float64", "", "relative rounding of the losses")
_ROW = {
    "inner": ("loss", "<grad f_k(x_k), x_k - x_K>"),
    "loss": ("loss", "f_k(x_k)"),
    "final_loss": ("loss", "f_k(x_K), at the end point"),
    "infimum": ("loss", "inf f_k as given, or an upper bound of it where it was estimated"),
    "grad_norm": (SLOPE, "norm of grad f_k(x_k)"),
    "distance": ("parameter", "norm of x_k - x_K"),
}


@dataclass(frozen=True, kw_only=True)
class FunctionClass(Instrument):
    """What is needed to ask whether the loss is alpha-beta, PL, aiming, ... along the way to an end point x_K.

    Fields, for f_k the monitor's batch (`monitor(step, batch=...)`, called before the optimizer's step) or the whole
    objective where none is given: inner, loss, final_loss, infimum, grad_norm, distance; see `landscape.regularity`.
    `trajectory(trace)` reads them as a `Trajectory`. Dropout is off while measuring.

    Without an end point (it lies in the future) f_k is the whole objective, and the gradient and the position are
    kept as random sketches: inner products with x_k - x_K are then estimates, with an error of about
    |gradient| |x_k - x_K| / sqrt(sketch), and `trajectory` takes the last row for x_K.

    Attributes:
        end: a finished `Recording` of a first pass, which makes sure that this pass repeats it bit by bit; or the
            parameters x_K, `(n,)`. The command takes the last checkpoint.
        per: "batch" for one row a step, "sample" for a row of every sample (the condition's definition; costs a
            gradient of each).
        infimum: f_k^*, or "estimate" to minimise each f_k on a copy.
        sketch: numbers kept of each vector where there is no end point.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import FunctionClass, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.L1Loss(), (eye(2), 9 * ones(2, 1)))
        >>> end = objective.theta() + 1  # in use: a finished Recording
        >>> with Trace.create("function-class.h5") as trace:
        ...     found = measure_once(objective, [FunctionClass(end)], trace, step=0)["function-class"].values
        >>> f"{found['inner']:.3f} at distance {found['distance']:.3f}"
        '2.000 at distance 1.732'
    """

    name: str = "function-class"
    end: Recording | torch.Tensor | None = dataclasses.field(default=None, kw_only=False, compare=False, repr=False)
    per: Literal["batch", "sample"] = "batch"
    infimum: float | Literal["estimate"] = 0.0
    sketch: int = 1024
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "gradient", "parameters"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(infimum=isinstance(self.infimum, str) or bool(np.isfinite(self.infimum)), sketch=self.sketch >= 16)
        if self.end is None and (self.per == "sample" or self.infimum == "estimate"):
            raise ValueError(f"{type(self).__name__}: per='sample' and infimum='estimate' need an end point")

    @override
    def settings(self) -> dict[str, Any]:
        """Class and settings, with a fingerprint of the end point: rows of another one do not belong to them."""
        theta = self._theta()
        mark = None if theta is None else f"{tensor_print([theta]):08x}"
        return super().settings() | {"end": mark, "sketch": self.sketch if self.end is None else None}

    @override
    def at_stations(self, stations: Sequence[Station]) -> FunctionClass:
        return self if self.end is not None else dataclasses.replace(self, end=stations[-1].theta)

    @override
    def expected(self, context: Context) -> dict[str, float]:
        """A gradient and a forward pass, or a few hundred where the infimum is estimated."""
        return {"gradient": 401.0 if self.infimum == "estimate" else 1.0, "value": 1.0}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        if self.end is not None:
            dims = ("sample",) if self.per == "sample" else ()
            row = {name: Field((None,) * len(dims), "float64", *what, dims=dims) for name, what in _ROW.items()}
            return row | {"rounding": _ROUNDING}
        sketch = partial(Field, (self.sketch,), "float64", dims=("projection",))
        return {
            **{name: Field((), "float64", *_ROW[name]) for name in ("loss", "infimum", "grad_norm")},
            "gradient_sketch": sketch(SLOPE, "random projections of the gradient"),
            "position_sketch": sketch("parameter", "the same projections of the parameters"),
            "rounding": _ROUNDING,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.regularity.measure import measure, measure_samples

        if isinstance(self.end, Recording):
            check = partial(self.end.check, context.step, context.objective, context.batch)
            context.objective.agreed(check)
        theta = self._theta()
        rounding = {"rounding": context.objective.rounding}
        if theta is None:
            return self._sketched(context) | rounding
        objective = context.on_batch() or context.objective
        if self.per == "batch":
            return dataclasses.asdict(measure(objective, theta, infimum=self.infimum)) | rounding
        rows = [dataclasses.asdict(row) for row in measure_samples(objective, theta, infimum=self.infimum)]
        return {name: np.array([row[name] for row in rows]) for name in _ROW} | rounding

    def _theta(self) -> torch.Tensor | None:
        return self.end.end if isinstance(self.end, Recording) else self.end

    def _sketched(self, context: Context) -> dict[str, Any]:
        from landscape.regularity.measure import without_dropout

        objective = context.objective
        objective.only_whole("a sketch of the gradient")
        with without_dropout(objective):
            loss, gradient = objective.value_and_gradient()
        project = _Sketch(objective.size, self.sketch, derive_seed(context.seed, self.name, -1))
        return {
            "loss": loss,
            "infimum": float(self.infimum),
            "grad_norm": float(gradient.double().norm()),
            "gradient_sketch": project(gradient),
            "position_sketch": project(objective.theta()),
        }


class _Sketch:
    """Each entry of a vector goes, with a random sign, into one of `size` sums: inner products are unbiased."""

    def __init__(self, n: int, size: int, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        self.place = torch.randint(0, size, (n,), generator=generator)
        self.sign = 2.0 * torch.randint(0, 2, (n,), generator=generator, dtype=torch.float64) - 1.0
        self.size = size

    def __call__(self, v: torch.Tensor) -> Array:
        import torch

        sums = torch.zeros(self.size, dtype=torch.float64)
        return sums.index_add_(0, self.place, self.sign * v.detach().cpu().double()).numpy()


def trajectory(records: Records) -> Trajectory:
    """The rows of `trace["function-class"]` as a `Trajectory`, labelled with their steps.

    Where the probe had no end point the last row is taken for it; inner products and distances are then estimates.
    Raises `ValueError` for records of another probe, and for fewer rows than a trajectory needs.
    """
    from landscape.regularity import Trajectory

    columns = records.read()
    if "rounding" not in columns or not len(columns["step"]):
        raise ValueError("these are no records of a FunctionClass probe, or there are none yet")
    rounding = float(np.max(columns["rounding"]))
    if "gradient_sketch" in columns:
        return Trajectory(**_from_sketches(columns), steps=columns["step"][:-1], rounding=rounding)
    steps = np.asarray(columns["step"])
    rows = {name: columns[name] for name in _ROW}
    if records.fields["inner"].ragged:
        steps = np.repeat(steps, [len(row) for row in columns["inner"]])
        rows = {name: np.concatenate(parts) for name, parts in rows.items()}
    return Trajectory(**rows, steps=steps, rounding=rounding)


def _from_sketches(columns: Any) -> dict[str, Array]:
    """Rows before the last one, which stands for the end point."""
    if len(columns["step"]) < 2:
        raise ValueError("a trajectory needs a row before its end point: measure at two steps or more")
    g, x = columns["gradient_sketch"], columns["position_sketch"]
    apart = x[:-1] - x[-1]
    return {
        "inner": (g[:-1] * apart).sum(1),
        "loss": columns["loss"][:-1],
        "final_loss": np.full(len(apart), columns["loss"][-1]),
        "infimum": columns["infimum"][:-1],
        "grad_norm": columns["grad_norm"][:-1],
        "distance": np.sqrt((apart**2).sum(1)),
    }
