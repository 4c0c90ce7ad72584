"""Array fields as plain columns, one per entry: what a table of rows and columns can hold.

An entry of `values` is `values.0`, of a field with labels `ratio.fc1.weight`, of two axes `table.0.1`. Fields
are identifiers without dots, so no two columns get the same name. A ragged field stays one column of lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from probes.trace.layout import COLUMNS, Array, Field, all_fields


def plain(fields: Mapping[str, Field]) -> dict[str, Field]:
    """The fields that a table of rows and columns can hold: not those whose rows are arrays end to end."""
    return {name: field for name, field in fields.items() if not field.parts}


def column_names(name: str, field: Field) -> list[str]:
    """The columns of one field; a scalar or ragged field is one column."""
    if not field.shape or field.ragged:
        return [name]
    first = field.labels or tuple(str(i) for i in range(field.inner[0]))
    rest = [[str(i) for i in range(n)] for n in field.inner[1:]]
    return [".".join((name, *entry)) for entry in itertools.product(first, *rest)]


def split_columns(columns: Mapping[str, Array], fields: Mapping[str, Field]) -> dict[str, Array]:
    """Columns `(T, ...)` as columns `(T,)` in the same order; rows of ragged fields stay arrays."""
    split: dict[str, Array] = {}
    for name, values in columns.items():
        field = fields.get(name) or COLUMNS[name]
        names = column_names(name, field)
        entries = [values] if not field.shape or field.ragged else values.reshape(len(values), len(names)).T
        split.update(zip(names, entries, strict=True))
    return split


def column_fields(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Column -> the `plain` field that it comes from, for its units; the columns that every table has included."""
    return {column: field for name, field in all_fields(plain(fields)).items() for column in column_names(name, field)}


def to_python(value: Any) -> Any:
    """A number, a string or a (nested) list of them, without numpy."""
    return value.tolist() if hasattr(value, "tolist") else value
