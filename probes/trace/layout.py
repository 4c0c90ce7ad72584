"""The layout of a trace file: HDF5, format "landscape-trace", version 1.

    /                   attributes format, version, created, uuid, seed; as JSON: config, environment, periods,
                        and where a probe has measured subject: what it was that was measured
    /events             a table: which probe failed or was skipped, at which step, and why
    /unfinished         a table, where a long measurement was begun: what it has found, see `probes.trace.unfinished`
    /probes/<name>      a table; attributes fields (JSON list of names, in order) and settings (JSON)
    a table             step (T,) int64, epoch, time, cost (T,) float64, and one dataset per field, (T, ...)
    a field's dataset   attributes units, description, and labels (JSON list of names of the entries of its first axis)
                        and dims (JSON list of names of its axes) if it has any, and parts (JSON list of names and
                        shape of each array) where a row is several arrays end to end
    a ragged field      <field>: the rows end to end, (sum of lengths, ...); <field>.offsets (T + 1,) int64

`step` is written last: a row exists when `step` has it, and whatever other datasets hold beyond is ignored. Strings are
of fixed length: in single-writer mode variable-length data is written without an error and can then be read by nobody.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np

from probes.environment import environment

FORMAT = "landscape-trace"
VERSION = 1
LIBVER = ("v110", "v110")  # the oldest file version with single-writer mode, so that older HDF5 reads it too

_STRING_LENGTH = 64
_CHUNK_BYTES = 16 << 10
_CHUNK_ROWS = 512

Array = np.ndarray[Any, Any]
Settings = Mapping[str, Any]
Part = tuple[tuple[str, ...], tuple[int, ...]]  # an array's names and its shape


class TraceError(OSError):
    """A trace cannot be opened or written; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class Field:
    """What one field of a row is.

    Attributes:
        shape: `()` for a scalar, `(k,)` or `(a, b)` for arrays; a first axis of None makes the field ragged:
            every row has its own length there.
        dtype: a numpy name ("float64", "int64", "bool", ...), "str" (up to 64 bytes of UTF-8), or "S<n>" or
            `("S", n)` for strings of up to n bytes.
        units: of the values, "" for pure numbers.
        description: one line for the reader of the file.
        labels: names of the entries of the first axis (of layers, of classes), one each; () for none.
        dims: what each axis is over ("eigenvalue", "layer"): fields of one record share the axes that they name alike.
            They say how to read the values, not what these are: fields that differ in them only are equal.
        parts: of a row that is several arrays end to end, as all weights of a network: for each its names (more than
            one where they share it) and its shape. Views, exports and frames leave such a field out.

    Raises `ValueError` for a shape, a dtype, labels or dims that cannot be stored.

    Example:
        >>> from probes import Field
        >>> Field((2,), units="loss", labels=("weight", "bias"))
        Field(shape=(2,), dtype='float64', units='loss', description='', labels=('weight', 'bias'))
    """

    shape: tuple[int | None, ...] = ()
    dtype: str = "float64"
    units: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()
    dims: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)
    parts: tuple[Part, ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if any(n is None for n in shape[1:]) or any(n is not None and int(n) < 1 for n in shape):
            raise ValueError(f"a field's shape has axes >= 1 and None only as the first one, not {shape}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", _dtype_name(self.dtype))
        object.__setattr__(self, "labels", _check_labels(self.labels, shape))
        object.__setattr__(self, "dims", _check_dims(self.dims, shape))
        if self.row_bytes >= 1 << 30:
            raise ValueError(f"a field of shape {shape} needs {self.row_bytes >> 20} MiB a row; the limit is 1024")

    @property
    def ragged(self) -> bool:
        """Whether every row has its own length along the first axis."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of one entry of the dataset: of a row, or of one element of a ragged row."""
        return tuple(n for n in self.shape if n is not None)

    @property
    def is_string(self) -> bool:
        """Whether the values are strings."""
        return self.dtype.startswith("S")

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the dataset."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.inner, dtype=np.int64))


def _check_labels(labels: Any, shape: tuple[int | None, ...]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"a field's labels are a sequence of strings, not {labels!r:.80}")
    labels = tuple(str(label) for label in labels)
    if labels and (not shape or shape[0] is None):
        raise ValueError(f"labels name the entries of a first axis of fixed length; a field of shape {shape} has none")
    if labels and len(labels) != shape[0]:
        raise ValueError(f"a field of shape {shape} has {shape[0]} labels, not {len(labels)}")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"a field's labels differ from each other; {twice!r:.80} is there twice")
    return labels


def _check_dims(dims: Any, shape: tuple[int | None, ...]) -> tuple[str, ...]:
    if isinstance(dims, str) or not all(isinstance(dim, str) and dim.isidentifier() for dim in dims):
        raise ValueError(f"a field's dims are a sequence of names, not {dims!r:.80}")
    dims = tuple(dims)
    if dims and (len(dims) != len(shape) or len(set(dims)) != len(dims)):
        raise ValueError(f"a field of shape {shape} has {len(shape)} dims that differ from each other, not {dims}")
    return dims


def _dtype_name(dtype: Any) -> str:
    if dtype in ("str", str):
        return f"S{_STRING_LENGTH}"
    if isinstance(dtype, tuple):
        dtype = f"S{int(dtype[1])}"
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"a field's dtype is a numpy name, 'str' or 'S<n>', not {dtype!r}") from None
    if found.kind not in "biufS" or found.itemsize == 0:
        raise ValueError(f"a field holds booleans, integers, floats or fixed-length strings ('S<n>'), not {dtype!r}")
    return f"S{found.itemsize}" if found.kind == "S" else found.name


COLUMNS: dict[str, Field] = {
    "epoch": Field((), "float64", "epoch", "epoch of the training run, nan when it was not given"),
    "time": Field((), "float64", "s", "seconds of writing since the start of the trace, pauses left out"),
    "cost": Field((), "float64", "s", "seconds that the measurement took"),
    "step": Field((), "int64", "step", "step of the training run"),  # last: it is written last
}
EVENTS = "/events"
UNFINISHED = "/unfinished"
EVENT_FIELDS: dict[str, Field] = {
    "probe": Field((), "S64", "", "name of the probe"),
    "reason": Field((), "S400", "", "what happened, and why"),
}


def all_fields(fields: Mapping[str, Field]) -> dict[str, Field]:
    """The columns that every table has, step first, and the fields that were declared: the order of reading."""
    return {"step": COLUMNS["step"], **COLUMNS, **fields}


@dataclass(frozen=True)
class Header:
    """The root attributes of a trace."""

    created: str
    uuid: str
    seed: int
    config: Any
    environment: dict[str, Any]
    periods: tuple[dict[str, Any], ...]
    version: int = VERSION
    subject: dict[str, Any] | None = None

    @classmethod
    def new(cls, config: Any, seed: int | None) -> Header:
        """The header of a trace that begins now. Raises `ValueError` for a config or a seed that cannot be kept."""
        if seed is not None and not 0 <= seed < 1 << 63:
            raise ValueError(f"seed is an integer in [0, 2**63), not {seed}")
        period = _period(None)
        return cls(
            created=period["start"],
            uuid=str(uuid.uuid4()),
            seed=secrets.randbits(63) if seed is None else int(seed),
            config=json.loads(to_json(config, "config")),
            environment=period["environment"],
            periods=(period,),
        )

    def resume(self, step: int | None) -> Header:
        """The header with one more period of writing, which begins now, after the rows of `step`."""
        return replace(self, periods=(*self.periods, _period(step)))


def _period(step: int | None) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"start": now, "step": step, "environment": environment()}


def to_json(value: Any, what: str) -> str:
    """`value` as JSON; objects that JSON does not know as their str(). Raises `ValueError` naming `what`."""
    try:
        return json.dumps(value, default=str)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from None


def write_header(file: h5py.File, header: Header) -> None:
    """Write the root attributes."""
    file.attrs["version"] = np.int64(header.version)
    file.attrs["seed"] = np.int64(header.seed)
    for name in ("created", "uuid"):
        _write_text(file, name, getattr(header, name))
    for name in ("config", "environment", "periods"):
        _write_text(file, name, to_json(getattr(header, name), name))
    if header.subject is not None:
        _write_text(file, "subject", to_json(header.subject, "subject"))
    _write_text(file, "format", FORMAT)


def create_table(
    file: h5py.File, name: str, fields: Mapping[str, Field], settings: Settings | None = None
) -> h5py.Group:
    """An empty table with a resizable dataset per column and field."""
    group = file.create_group(place_of(name))
    _write_text(group, "fields", json.dumps(list(fields)))
    _write_text(group, "settings", to_json(settings, f"the settings of {name}"))
    for column, field in {**fields, **COLUMNS}.items():
        dtype = h5py.string_dtype("utf-8", int(field.dtype[1:])) if field.is_string else np.dtype(field.dtype)
        rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // field.row_bytes))
        dataset = group.create_dataset(
            column, shape=(0, *field.inner), maxshape=(None, *field.inner), chunks=(rows, *field.inner), dtype=dtype
        )
        _write_text(dataset, "units", field.units)
        _write_text(dataset, "description", field.description)
        if field.labels:
            _write_text(dataset, "labels", json.dumps(field.labels))
        if field.dims:
            _write_text(dataset, "dims", json.dumps(field.dims))
        if field.parts:
            _write_text(dataset, "parts", json.dumps(field.parts))
        if field.ragged:
            offsets = group.create_dataset(
                offsets_name(column), data=np.zeros(1, np.int64), maxshape=(None,), chunks=(_CHUNK_ROWS,)
            )
            _write_text(offsets, "description", f"row i of {column} is {column}[offsets[i]:offsets[i + 1]]")
    return group


def place_of(name: str) -> str:
    """Where a table is in the file: a name that is a place already, or the name of a probe."""
    return name if is_place(name) else f"/probes/{name}"


def is_place(name: str) -> bool:
    """Whether it is one of the tables beside those of the probes, `EVENTS` or `UNFINISHED`."""
    return name.startswith("/")


def offsets_name(field: str) -> str:
    """The dataset with the offsets of a ragged field; no field can have this name."""
    return f"{field}.offsets"


def write_at(dataset: h5py.Dataset, start: int, values: Array) -> None:
    """Put `values` at row `start`, growing or cutting the dataset to end there."""
    dataset.id.set_extent((start + len(values), *values.shape[1:]))
    if len(values):
        # strings: HDF5 converts between character sets only when the dtype names them
        dataset[start:] = values.astype(dataset.dtype) if values.dtype.kind == "S" else values


def _write_text(where: h5py.HLObject, name: str, text: str) -> None:
    data = text.encode()
    where.attrs.create(name, np.array(data, dtype=h5py.string_dtype("utf-8", max(1, len(data)))))
