"""A finding: what a paper or its code says, and what is seen when it is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Seen:
    """What a reproduction saw.

    Attributes:
        columns: headings of a table.
        rows: its cells; the first is what the row is about.
        again: it is what the finding says.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    again: bool


@dataclass(frozen=True)
class Finding:
    """What contradicts a publication or a library, with what reproduces it in less than a minute.

    Attributes:
        name: that the command takes.
        about: whose work it is.
        says: what is said there.
        found: what is seen.
        measure: sees it.
    """

    name: str
    about: str
    says: str
    found: str
    measure: Callable[[], Seen]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"
