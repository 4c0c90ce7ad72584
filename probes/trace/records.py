"""Records: the rows of one group of a trace, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import h5py

from probes.trace.columns import plain
from probes.trace.frames import dataset_of, frame_of
from probes.trace.layout import COLUMNS, Array, Field, all_fields
from probes.trace.reader import count_rows, read_column, read_fields, read_settings

if TYPE_CHECKING:
    import pandas
    import xarray


class Records:
    """The rows of one group. `records["values"]` is a numpy array `(T, ...)`.

    Besides the declared fields every row has "step" (int64), "epoch" (nan when not given), "time" (seconds
    since the start) and "cost" (seconds). Strings come as numpy strings, ragged fields as object arrays
    `(T,)` of arrays. Each access reads the file as it is then; `read` gives all columns with the same T.

    Example:
        >>> from probes import Field, Trace
        >>> with Trace.create("records.h5") as trace:
        ...     trace.declare("top", {"values": Field((2,), units="loss/parameter^2")})
        ...     for step in (0, 10):
        ...         trace.record("top", step, values=[3.0, 1.0])
        >>> records = Trace.open("records.h5")["top"]
        >>> records["step"], records["values"].shape, records.fields["values"].units
        (array([ 0, 10]), (2, 2), 'loss/parameter^2')
    """

    def __init__(self, name: str, place: str, reading: Callable[[], AbstractContextManager[h5py.File]]) -> None:
        self.name = name
        self._place = place
        self._reading = reading

    @property
    def fields(self) -> dict[str, Field]:
        """The declared fields with shape, dtype, units and description."""
        with self._reading() as file:
            return read_fields(file[self._place])

    @property
    def settings(self) -> dict[str, Any] | None:
        """How the rows were measured, as it was declared; None for records without settings."""
        with self._reading() as file:
            return read_settings(file[self._place])

    def __getitem__(self, field: str) -> Array:
        with self._reading() as file:
            group = file[self._place]
            known = all_fields(read_fields(group))
            if field not in known:
                raise KeyError(f"{self.name} has no field {field!r}; it has {', '.join(known)}")
            return read_column(group, field, known[field], slice(0, count_rows(group)))

    def read(self, start: int = 0, stop: int | None = None, *, only: Collection[str] = ()) -> dict[str, Array]:
        """All columns, of one moment: step, epoch, time, cost, and the fields in order.

        `start` and `stop` select rows as a slice does: `read(-20)` gives the last twenty; `only` selects columns.
        A field whose rows are arrays end to end, a whole network, is read where `only` names it.
        """
        with self._reading() as file:
            return self._columns(file, start, stop, only)

    def row(self, index: int = -1) -> dict[str, Any]:
        """One row of `read`, the last one by default, as a dict. Raises `IndexError` when there is no such row."""
        with self._reading() as file:
            rows = count_rows(file[self._place])
            start = index + rows if index < 0 else index
            if not 0 <= start < rows:
                raise IndexError(f"{self.name} has {rows} rows; there is no row {index}")
            return {name: column[0] for name, column in self._columns(file, start, start + 1).items()}

    def to_xarray(self) -> xarray.Dataset:
        """All columns as a Dataset, along `step`, or along `row` when a step occurs more than once.

        step, epoch, time and cost are coordinates; each field is a variable with its units and description as
        attributes. The further axes are named by what they are over where the field says so (`eigenvalue`: values
        and residuals of one spectrum share it), else `values_0`, `values_1`; labels are the coordinate of the first.
        A ragged field is padded to its longest row (floats with nan, integers with 0, strings with ""), and the
        coordinate `values.count` says how many entries of each row are real.
        Raises `MissingExtra` when xarray is not installed.
        """
        return dataset_of(self.name, plain(self.fields), self.settings, self.read())

    def to_pandas(self) -> pandas.DataFrame:
        """All columns as a DataFrame with a row per record: step, epoch, time, cost, and the fields.

        An array field has a column per entry: `values.0`, `values.1`, or by its labels; a ragged field is one
        column of arrays. `frame.attrs` has "units" and "descriptions" per column, and the settings.
        Raises `MissingExtra` when pandas is not installed.
        """
        return frame_of(self.name, self.fields, self.settings, self.read())

    def _columns(self, file: h5py.File, start: int, stop: int | None, only: Collection[str] = ()) -> dict[str, Array]:
        group = file[self._place]
        first, last, _ = slice(start, stop).indices(count_rows(group))  # before the rest: rows that exist are whole
        rows = slice(first, max(first, last))
        fields = all_fields(read_fields(group))
        chosen = only or plain(fields)
        return {n: read_column(group, n, field, rows) for n, field in fields.items() if n in chosen}

    def __iter__(self) -> Iterator[str]:
        return iter(all_fields(self.fields))

    def __contains__(self, field: object) -> bool:
        return field in COLUMNS or field in self.fields

    def __len__(self) -> int:
        with self._reading() as file:
            return count_rows(file[self._place])

    def __repr__(self) -> str:
        with self._reading() as file:
            group = file[self._place]
            return f"Records({self.name!r}, rows={count_rows(group)}, fields={list(read_fields(group))})"
