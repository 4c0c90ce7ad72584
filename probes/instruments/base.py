"""What all instruments share: name, schedule and settings, defaults for what a probe may leave out, units of fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np

from probes.context import Context
from probes.instruments.settings import rule_broken
from probes.probe import Probe
from probes.schedules import Schedule, as_schedule
from probes.session import Pairs
from probes.trace.layout import Array, Field
from probes.trace.table import truncate

if TYPE_CHECKING:
    import torch

    from landscape import Objective
    from landscape.spectra import Footprint
    from probes.instruments.stations import Station

CURVATURE = "loss/parameter^2"
SLOPE = "loss/parameter"
CONVERGED = Field((), "bool", "", "whether the asked accuracy was reached")
MATVECS = Field((), "int64", "products", "matrix-vector products made")
LIMITED_BY = Field((), "S24", "", "the precision or threshold that cuts through the spectrum; empty: kappa is its own")
NOTE = Field((), "S200", "", "why numbers are zero or missing, in words; empty where they are not")
# What every probe says that makes products with an operator.
TOLD = {
    "noise": Field((), "float64", "", "relative error of one product beyond rounding; it is in the errors already"),
    "checked": Field((), "S120", "", "what the self-check of second derivatives found; empty where there was none"),
    "note": NOTE,
}
# Fields that came later than the trace format: a trace without them is resumed without them.
ADDED = frozenset(
    {"limited_by", "rounding", "noise", "checked", "note", "path", "path_step", "path_distance", "explained"}
)
_NO_SETTINGS = ("name", "every", "basis", "through", "spread")


@dataclass(frozen=True, kw_only=True)
class Instrument(Probe):
    """A `Probe` of this package, with all of the optional members.

    Attributes:
        every: measure at the steps that it divides, or a schedule.
        name: of the records in the trace; give another one to measure the same thing in two ways.
        takes: what a first measurement takes where that is always the same, see `expected`.
    """

    every: int | Schedule = 1
    name: str = ""
    takes: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        as_schedule(self.every)
        for field in dataclasses.fields(self):
            rule = rule_broken(field.name, getattr(self, field.name), str(field.type))
            if rule:
                self._refuse(field.name, rule)
        self._check(name=bool(self.name))

    @property
    def pairs(self) -> Pairs | None:
        """The search that it shares with other probes."""
        return None

    def expected(self, context: Context) -> dict[str, float]:
        """What a first measurement takes, see `Probe`: the products of its search, or `takes`."""
        return dict(self.takes) if self.pairs is None else {self.pairs.operator: self.pairs.products}

    def settings(self) -> dict[str, Any]:
        """Class and settings, without what changes no number (the schedule, the place of vectors): what must be equal
        for records to belong together.
        """
        names = [field.name for field in dataclasses.fields(self) if field.name not in _NO_SETTINGS]
        return {"probe": type(self).__name__} | {name: getattr(self, name) for name in names}

    def footprint(self, context: Context) -> Footprint | None:
        """What its vectors will take and where, at most, as far as it is known beforehand; None where it is not."""
        return None

    @property
    def of_all(self) -> bool:
        """Whether it is of all checkpoints together, and is measured once, at the last of them."""
        return False

    def with_objectives(self, made: Callable[[str], Objective]) -> Self:
        """The same probe with the objectives made that it has by name, `hgp:second=module:function`."""
        return self

    def at_stations(self, stations: Sequence[Station]) -> Self:
        """The same probe with the networks of a finished training, where it looks at others than the one at hand."""
        return self

    def _check(self, **conditions: bool) -> None:
        """Raise `ValueError` for the first setting whose condition does not hold."""
        for setting, holds in conditions.items():
            if not holds:
                self._refuse(setting)

    def _refuse(self, setting: str, rule: str = "") -> NoReturn:
        found = f"{type(self).__name__}: {setting}={getattr(self, setting)!r} is not possible"
        raise ValueError(f"{found}: {setting} {rule}" if rule else found)


def values_of(result: Any, names: Iterable[str]) -> dict[str, Any]:
    """What a result holds under these names."""
    return {name: getattr(result, name) for name in names}


def told(result: Any, noise: float | None = None, note: str = "") -> dict[str, Any]:
    """The `TOLD` of a result of `landscape`; `noise` and `note` where it does not say itself."""
    checked = getattr(result, "checked", None)
    return {
        "noise": getattr(result, "operator_noise", 0.0) if noise is None else noise,
        "checked": "" if checked is None else truncate(str(checked), TOLD["checked"]),
        "note": truncate(getattr(result, "note", "") or note, NOTE),
    }


def first(values: torch.Tensor) -> float:
    """The first entry; nan where there is none."""
    return float(values[0]) if len(values) else np.nan


def pad(values: Any, shape: tuple[int, ...], fill: float | None = np.nan) -> Array:
    """Host values in the leading corner of an array; the rest is `fill`, or each row's last value."""
    array = np.asarray(values, dtype=np.float64)
    width = [(0, full - n) for n, full in zip(array.shape, shape, strict=True)]
    return np.pad(array, width, "edge") if fill is None else np.pad(array, width, constant_values=fill)
