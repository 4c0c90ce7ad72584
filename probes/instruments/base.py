"""What all instruments share: their name in the trace, their schedule, their settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from probes.schedules import Schedule, as_schedule
from probes.trace.layout import Field

if TYPE_CHECKING:
    pass


CURVATURE = "loss/parameter^2"
CONVERGED = Field((), "bool", "", "whether the asked accuracy was reached")


@dataclass(frozen=True, kw_only=True)
class DynamicsProbe:
    """What the probes of the training dynamics share.

    Attributes:
        every: measure at the steps that it divides, or a schedule.
        name: of the records in the trace; give another one to measure the same thing in two ways.
    """

    every: int | Schedule = 1
    name: str = ""

    default_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        as_schedule(self.every)
        if not self.name:
            object.__setattr__(self, "name", self.default_name)

    def settings(self) -> dict[str, Any]:
        """Class and settings, without the schedule: what must be equal for records to belong together."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("name", "every")]
        return {"probe": type(self).__name__} | {name: getattr(self, name) for name in names}

    def _check(self, **conditions: bool) -> None:
        """Raise `ValueError` for the first setting whose condition does not hold."""
        for setting, holds in conditions.items():
            if not holds:
                raise ValueError(f"{type(self).__name__}: {setting}={getattr(self, setting)!r} is not possible")
