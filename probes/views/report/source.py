"""The traces of a report, opened: what the rest of the page is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.instruments.entry import Entry
from probes.views.kinds import kind_of
from probes.views.tables import ordered

if TYPE_CHECKING:
    from probes.trace.records import Records
    from probes.trace.trace import Trace


@dataclass(frozen=True)
class Group:
    """The records of one name: which kind they are of (None: not one of the house's), and all their columns."""

    records: Records
    entry: Entry
    kind: str | None
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One trace, what it is called in the report, and its groups: the loss first."""

    trace: Trace
    label: str
    groups: list[Group]

    @classmethod
    def read(cls, trace: Trace, label: str) -> Source:
        """All of a trace as it is now."""
        groups = [
            Group(records, entry, kind_of(columns, records.settings), columns)
            for records, entry, columns in ordered(trace, {})
        ]
        return cls(trace, label, groups)

    @property
    def steps(self) -> list[Any]:
        """The steps of each group."""
        return [group.columns["step"] for group in self.groups]

    @property
    def subject(self) -> Mapping[str, Any]:
        """What was measured, as the trace says; nothing for traces that do not."""
        return self.trace.subject

    @property
    def size(self) -> int | None:
        """How many parameters there are, where some record tells it."""
        for group in self.groups:
            if (
                group.kind == "density"
                and len(group.columns["n"])
                and not (group.records.settings or {}).get("parameters")
            ):
                return int(group.columns["n"][-1])
        return None
