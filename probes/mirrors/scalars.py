"""The numbers of a record that a curve can be drawn of, each with the number that is its error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.trace.columns import column_names
from probes.trace.layout import Array, Field

# Longer fields (nodes of a density, sketches) are no bundle of curves; the trace has them.
_ENTRIES = 32
_ERRORS = ("stderr", "residual", "bound", "error")
_SHARED = {"value": ("stderr", "residual", "error"), "values": ("residuals",), "cosines": ("bounds",)}
_SHARED["eigenvalues"] = ("residuals",)


@dataclass(frozen=True)
class Scalar:
    """One number of a record.

    Attributes:
        name: of its column: the field's, with the entry's behind a dot (`values.0`, `ratio.fc1.weight`).
        value: nan where nothing was found.
        lower, upper: value -+ its error; None where the probe has no error for it.
    """

    name: str
    value: float
    lower: float | None = None
    upper: float | None = None


def scalars(values: Mapping[str, Any], fields: Mapping[str, Field]) -> Iterator[Scalar]:
    """The numbers of one record; not those that are errors of others, words, and long or ragged fields.

    Example:
        >>> from probes.mirrors.scalars import scalars
        >>> from probes.trace import Field
        >>> fields = {"value": Field((), "float64"), "stderr": Field((), "float64")}
        >>> list(scalars({"value": 3.0, "stderr": 0.5}, fields))
        [Scalar(name='value', value=3.0, lower=2.5, upper=3.5)]
    """
    numbers = {name: field for name, field in fields.items() if name in values and _is_curve(field)}
    errors = {name: found for name in numbers if (found := _error_of(name, numbers)) is not None}
    taken = {*errors.values()} | ({"lower", "upper"} if _has_ends(numbers) else set())
    for name, field in numbers.items():
        if name in taken:
            continue
        value = _flat(values[name])
        lower, upper = _ends(name, value, values, errors)
        for i, column in enumerate(column_names(name, field)):
            ends = (None, None) if lower is None or upper is None else (float(lower[i]), float(upper[i]))
            yield Scalar(column, float(value[i]), *ends)


def _ends(name: str, value: Any, values: Mapping[str, Any], errors: Mapping[str, str]) -> tuple[Any, Any]:
    if name == "value" and {"lower", "upper"} <= values.keys():
        return _flat(values["lower"]), _flat(values["upper"])
    if name not in errors:
        return None, None
    error = _flat(values[errors[name]])
    return value - error, value + error


def _flat(value: Any) -> Array:
    host = value.detach().cpu() if hasattr(value, "detach") else value  # a tensor on any device
    return np.asarray(host, dtype=float).reshape(-1)


def _is_curve(field: Field) -> bool:
    number = np.dtype(field.dtype).kind in "biuf"
    return number and not field.ragged and not field.parts and math.prod(field.inner if field.shape else ()) <= _ENTRIES


def _has_ends(fields: Mapping[str, Field]) -> bool:
    return {"value", "lower", "upper"} <= fields.keys()


def _error_of(name: str, fields: Mapping[str, Field]) -> str | None:
    """The field that is the error of this one, entry by entry."""
    names = [f"{name}_{ending}" for ending in _ERRORS] + list(_SHARED.get(name, ()))
    return next((other for other in names if other in fields and fields[other].shape == fields[name].shape), None)
