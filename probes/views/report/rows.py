"""The table behind a block: the cells of `landscape show` for the page, all digits as CSV for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.instruments.entry import Entry
from probes.trace.columns import split_columns, to_python
from probes.trace.layout import COLUMNS
from probes.views.report.page import Grid
from probes.views.tables import cells_of

if TYPE_CHECKING:
    from probes.trace.layout import Field
    from probes.trace.records import Records

_ROWS = 60  # of a table on the page
_CELLS = 2000  # of a CSV: about 30 kB
_TEXT = 16  # letters of a text that take the room of a number


def some_rows(count: int, most: int) -> Any:
    """The numbers of `most` rows of so many, evenly chosen, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.arange(0)


def grid_of(records: Records, entry: Entry, columns: Mapping[str, Any]) -> Grid:
    """What the rows say, in the words of the command's tables; of many, an even choice."""
    count = len(columns["step"])
    shown = some_rows(count, _ROWS)
    settings = records.settings
    rows: list[dict[str, str]] = []
    for row in shown:
        values = {field: column[row] for field, column in columns.items()}
        rows.append(dict(cells_of(records.name, entry, settings, values)))
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    text, missing = csv_of(columns, records.fields)
    parts = [f"{len(shown)} of {count} rows, evenly chosen; the CSV has more"] if len(shown) < count else []
    parts += [f"the CSV is without {', '.join(missing)}: landscape export has them"] if missing else []
    named = [
        (str(step), [row.get(heading, "") for heading in headings])
        for step, row in zip(columns["step"][shown], rows, strict=True)
    ]
    prefix = f"{records.name}: "
    headings = [heading.removeprefix(prefix) for heading in headings]
    return Grid("step", headings, named, text, "; ".join(parts))


def csv_of(columns: Mapping[str, Any], fields: Mapping[str, Field]) -> tuple[str, list[str]]:
    """All columns as `landscape export` writes them; without the largest fields where they are too many, by name."""
    sizes = {name: _size(values) for name, values in columns.items()}
    kept: list[str] = []
    missing: list[str] = []
    room = _CELLS
    for name in sorted(sizes, key=lambda name: (name not in COLUMNS, sizes[name])):
        fits = sizes[name] <= room or name in COLUMNS
        (kept if fits else missing).append(name)
        room -= sizes[name] if fits else 0
    chosen = {name: values for name, values in columns.items() if name in kept}
    rows = some_rows(len(columns["step"]), _CELLS)
    chosen = {name: values[rows] for name, values in chosen.items()}
    # seconds that a clock told, and sums of parts of an epoch: more digits are noise
    for name, digits in (("time", 4), ("cost", 4), ("epoch", 12)):
        if name in chosen:
            chosen[name] = np.array([float(f"{value:.{digits}g}") for value in chosen[name]])
    split = split_columns(chosen, fields)
    return csv_text(list(split), [_texts(column) for column in split.values()]), missing


def csv_text(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> str:
    """Columns under their names, as CSV."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([_inert(name) for name in names])
    writer.writerows(zip(*columns, strict=True))
    return target.getvalue()


def _size(values: Any) -> int:
    if values.dtype == object:
        return sum(np.size(row) for row in values)
    return int(values.size) * (max(1, max(map(len, values), default=0) // _TEXT) if values.dtype.kind in "SU" else 1)


def _texts(column: Any) -> list[Any]:
    if column.dtype == object:
        return [json.dumps(to_python(cell)) for cell in column]
    return [_inert(value) if isinstance(value, str) else value for value in column.tolist()]


def _inert(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
