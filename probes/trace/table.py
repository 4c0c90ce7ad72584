"""Rows on their way to the file: checked against their fields when recorded, kept until the next flush."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probes.trace.layout import COLUMNS, Array, Field, Settings, all_fields, offsets_name
from probes.trace.reader import read_fields, read_settings

_RESERVED = {*COLUMNS, "name", "self"}


class Table:
    """A declared table: its fields, how many rows the file has, and the rows that wait for the next flush.

    Attributes:
        rows: rows in the file.
        elements: for each ragged field, entries in its flat dataset.
        waiting: rows recorded since the last flush; `nbytes` is their size.
    """

    def __init__(self, name: str, fields: Mapping[str, Field], settings: Settings | None = None) -> None:
        self.name = name
        self.fields = dict(fields)
        self.settings = None if settings is None else dict(settings)
        self.rows = 0
        self.elements = {name: 0 for name, field in self.fields.items() if field.ragged}
        self.nbytes = 0
        self._row_bytes = sum(field.row_bytes for field in all_fields(fields).values() if not field.ragged)
        self._columns: dict[str, list[Any]] = {name: [] for name in all_fields(fields)}
        self._encoders = {field: _encoder(f"{name}: {field}", spec) for field, spec in self.fields.items()}

    @property
    def waiting(self) -> int:
        """Rows recorded since the last flush."""
        return len(self._columns["step"])

    def append(self, step: int, epoch: float | None, time: float, cost: float, values: Mapping[str, Any]) -> None:
        """Check one row and keep it; raise `ValueError` or `TypeError` naming the field and keep nothing."""
        if values.keys() != self.fields.keys():
            missing = [name for name in self.fields if name not in values]
            unknown = [name for name in values if name not in self.fields]
            raise ValueError(
                f"{self.name}: a record has the fields {', '.join(self.fields)}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            )
        try:
            number = operator.index(step)
        except TypeError:
            raise TypeError(f"{self.name}: step is an integer, not {step!r}") from None
        if not -(1 << 63) <= number < 1 << 63:
            raise ValueError(f"{self.name}: step is a 64-bit integer, not {number}")
        row = {name: encode(values[name]) for name, encode in self._encoders.items()}
        row |= {"epoch": np.nan if epoch is None else float(epoch), "time": time, "cost": float(cost), "step": number}
        for name, value in row.items():
            self._columns[name].append(value)
        self.nbytes += self._row_bytes + sum(row[name].nbytes for name in self.elements)

    def batch(self) -> dict[str, tuple[int, Array]]:
        """What to write: dataset -> (first row, values), `step` last. Asking again gives the same."""
        out: dict[str, tuple[int, Array]] = {}
        for name, field in {**self.fields, **COLUMNS}.items():
            column = self._columns[name]
            if field.ragged:
                start = self.elements[name]
                lengths = np.array([len(part) for part in column], dtype=np.int64)
                out[name] = (start, np.concatenate(column))
                out[offsets_name(name)] = (self.rows + 1, start + np.cumsum(lengths))
            else:
                out[name] = (self.rows, np.array(column, dtype=field.dtype).reshape(-1, *field.inner))
        return out

    def forget(self, batch: Mapping[str, tuple[int, Array]]) -> None:
        """Drop the rows of a batch that is in the file now."""
        for name in self.elements:
            self.elements[name] += len(batch[name][1])
        self.rows += self.waiting
        self.nbytes = 0
        for column in self._columns.values():
            column.clear()

    def count(self, group: Any) -> None:
        """Take the numbers of rows from a table in a file."""
        self.rows = int(group["step"].shape[0])
        self.elements = {name: int(group[name].shape[0]) for name in self.elements}

    def check_same(self, fields: Mapping[str, Field], settings: Settings | None) -> None:
        """Raise `ValueError` showing both when a second declaration differs from the first."""
        if settings != self.settings:
            raise ValueError(
                f"{self.name!r} is in this trace already with other settings: {_show(self.settings)}, "
                f"now {_show(settings)}; give the new one a name= of its own"
            )
        if dict(fields) != self.fields:
            old = {name: field for name, field in self.fields.items() if fields.get(name) != field}
            new = {name: field for name, field in fields.items() if self.fields.get(name) != field}
            raise ValueError(
                f"{self.name!r} is in this trace already with other fields: {old or '(none)'}, now {new or '(none)'}"
            )


def read_table(group: Any) -> Table:
    """The declaration of a table in a file, without its rows."""
    return Table(group.name.rsplit("/", 1)[-1], read_fields(group), read_settings(group))


def check_names(name: str, fields: Mapping[str, Field]) -> None:
    """Raise `ValueError` for a name that a file or a keyword argument cannot have."""
    if not name or "/" in name or name.strip(". ") == "" or not name.isprintable():
        raise ValueError(f"a record's name is printable text without '/', not {name!r}")
    if not fields:
        raise ValueError(f"{name}: declare at least one field")
    for field, spec in fields.items():
        if not field.isidentifier() or field in _RESERVED:
            raise ValueError(
                f"{name}: {field!r} cannot be a field's name; it is a Python identifier other than "
                + ", ".join(sorted(_RESERVED))
            )
        if not isinstance(spec, Field):
            raise TypeError(f"{name}: {field} is declared with a Field(shape, dtype, units, description)")


def _show(settings: Settings | None) -> str:
    return "none" if settings is None else ", ".join(f"{key}={value!r}" for key, value in settings.items())


# -- one value ---------------------------------------------------------------------------------------------


def _encoder(where: str, field: Field) -> Callable[[Any], Any]:
    if field.shape == () and field.dtype == "float64":
        # most records are Python floats: thirty times faster than by way of an array
        return lambda value: value if type(value) is float else _encode(where, field, value)
    return lambda value: _encode(where, field, value)


def _encode(where: str, field: Field, value: Any) -> Array:
    """`value` as a new array of the field's dtype and shape."""
    value = _unmasked(where, field, value)
    if hasattr(value, "detach"):  # a tensor, known without importing torch; double() because numpy has no bfloat16
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    array = _strings(where, field, value) if field.is_string else _numbers(where, field, value)
    expected = field.shape
    if array.ndim != len(expected) or any(n is not None and n != m for n, m in zip(expected, array.shape, strict=True)):
        shape = str(expected).replace("None", "any length")
        raise ValueError(f"{where} has shape {shape}, not {array.shape}")
    return array


def _unmasked(where: str, field: Field, value: Any) -> Any:
    """Masked entries are nan; what has no nan is refused, for the number under a mask means nothing."""
    if isinstance(value, list | tuple) and any(isinstance(part, np.ma.MaskedArray) for part in value):
        value = np.ma.array(value)
    if not np.ma.is_masked(value):
        return value
    if np.dtype(field.dtype).kind != "f" or value.dtype.kind not in "biuf":
        raise ValueError(
            f"{where} holds {field.dtype}, which has no nan for masked entries; {value!r:.80} does not fit"
        )
    return value.astype(np.result_type(value.dtype, np.float64)).filled(np.nan)


def _numbers(where: str, field: Field, value: Any) -> Array:
    try:
        array = np.array(value)
    except ValueError:
        array = np.array(None)
    target = np.dtype(field.dtype)
    if array.dtype.kind not in "biuf" and (array.size or array.dtype.kind == "c"):
        raise TypeError(f"{where} holds {field.dtype}, not {value!r:.80}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(target, copy=False)
    if converted is array:
        return array
    exact = target.kind == "f" or np.array_equal(converted, array)
    if not exact or (target.kind == "f" and np.any(np.isinf(converted) & ~np.isinf(array))):
        raise ValueError(f"{where} holds {field.dtype}; {value!r:.80} does not fit")
    return converted


def _strings(where: str, field: Field, value: Any) -> Array:
    texts = np.array(value, dtype=object)
    if not all(isinstance(text, str) for text in texts.flat):
        raise TypeError(f"{where} holds strings, not {value!r:.80}")
    encoded = np.empty(texts.shape, dtype=field.dtype)
    limit = encoded.dtype.itemsize
    for index, text in np.ndenumerate(texts):
        data = text.encode()
        if len(data) > limit or "\0" in text:
            raise ValueError(f"{where} holds strings of up to {limit} bytes without NUL; {text!r:.60} does not fit")
        encoded[index] = data
    return encoded


def truncate(text: str, field: Field) -> str:
    """`text` cut to what a string field holds, at the end of a character."""
    limit = np.dtype(field.dtype).itemsize
    text = text.replace("\0", " ")
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "..."
