"""What probes share that look at several networks together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from typing_extensions import override

from probes.hashes import hash_of
from probes.instruments.base import Instrument
from probes.instruments.stations import Station, Through, stations_of


@dataclass(frozen=True, kw_only=True)
class OfNetworks(Instrument):
    """A probe of several networks, which are among its settings by a hash.

    Attributes:
        through: parameters `(n,)` of each by their steps, or in order; on checkpoints, the command has those.
    """

    through: Through | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    @override
    def of_all(self) -> bool:
        return True

    @override
    def at_stations(self, stations: Sequence[Station]) -> Self:
        return dataclasses.replace(self, through=list(stations)) if self.of_all and self.through is None else self

    @override
    def settings(self) -> dict[str, Any]:
        """Class and settings, with a hash of the networks: rows of others do not belong to them."""
        return super().settings() | ({"through": self._hash} if self.of_all and self._stations else {})

    @cached_property
    def _hash(self) -> str:
        return hash_of({f"{i}": one.theta for i, one in enumerate(self._stations)})

    @cached_property
    def _stations(self) -> Sequence[Station]:
        return () if self.through is None else stations_of(self.through)
