"""What the records behind a comparison say of their products: the self-check, the noise, what limits kappa."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probes.errors import first_few
from probes.numbers import short

if TYPE_CHECKING:
    from probes.trace.layout import Field
    from probes.trace.runs import Run

_WORDS = {
    "checked": "second derivatives: ",
    "noise": "relative noise of a product ",
    "limited_by": "kappa limited by ",
    "note": "",
}


def notes_on_products(measured: Sequence[tuple[Run, str, Mapping[str, Field]]]) -> list[str]:
    """A line for each thing said, with the runs that say it where not all do.

    measured: runs, the name of the records that are compared, and the fields of those.
    """
    notes = []
    for field, words in _WORDS.items():
        said: dict[str, list[str]] = {}
        for run, probe, fields in measured:
            column = run.records(probe).read(only=(field,))[field] if field in fields else ()
            for text in _texts(column):
                said.setdefault(text, []).append(run.name)
        for text, names in said.items():
            whose = "" if len(names) == len(measured) else f" ({first_few(names)})"
            if text:
                notes.append(f"{words}{text}{whose}")
    return notes


def _texts(column: Any) -> list[str]:
    """The distinct things that the records of one run say; "" for nothing."""
    if not len(column):
        return [""]
    if isinstance(column[0], str):
        return list(dict.fromkeys(column))
    largest = float(max(column))  # the noise of the least exact of them
    return [short(largest, 2) if largest > 0 else ""]
