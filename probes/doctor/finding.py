"""One line of the report: what was looked at, what it is, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from probes.errors import one_line

Status = Literal["ok", "note", "FAIL", ""]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: was looked at.
        text: what was found, and what to do about it.
        status: "ok"; "note" for what a reader must know; "FAIL" for what must be mended; "" for a fact.
        values: the same for programs: numbers and names.
    """

    what: str
    text: str
    status: Status = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def finding(what: str, look: Callable[[], Finding | str]) -> Finding:
    """What `look()` finds, a text being "ok"; a failure of it is a line in the report and nothing is raised."""
    try:
        found = look()
    except Exception as error:  # the point of the report is that a failure is a line in it
        return Finding(what, f"does not work: {one_line(error, limit=300)}", "FAIL")
    return found if isinstance(found, Finding) else Finding(what, found, "ok")
