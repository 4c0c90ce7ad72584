"""Columns of records as xarray and pandas objects, with units and descriptions as attributes (extra `analysis`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import import_extra
from probes.trace.columns import column_fields, split_columns
from probes.trace.layout import COLUMNS, Array, Field, Settings

if TYPE_CHECKING:
    import pandas
    import xarray

Columns = Mapping[str, Array]
Fields = Mapping[str, Field]


def dataset_of(name: str, fields: Fields, settings: Settings | None, columns: Columns) -> xarray.Dataset:
    """What `Records.to_xarray` returns, of all columns of one group."""
    xr = import_extra("xarray", "to_xarray()")
    taken = {"step", *COLUMNS, *fields}
    steps = columns["step"]
    row = "step" if len(np.unique(steps)) == len(steps) else _free_name("row", taken)
    coordinates: dict[str, Any] = {
        column: ((row,), columns[column], _attributes(field)) for column, field in COLUMNS.items()
    }
    variables: dict[str, Any] = {}
    axes_so_far: dict[str, _Axis] = {}
    for column, field in fields.items():
        values = columns[column]
        if field.ragged:
            coordinates[f"{column}.count"] = ((row,), np.array([len(part) for part in values], dtype=np.int64))
            values = pad(values, field)
        axes = _axes(column, field, values.shape[1:], axes_so_far, taken)
        if field.labels:
            coordinates[axes[0]] = ((axes[0],), np.array(field.labels))
        variables[column] = ((row, *axes), values, _attributes(field))
    attributes = {"name": name}
    if settings is not None:
        attributes["settings"] = json.dumps(settings)
    return xr.Dataset(variables, coordinates, attributes)


_Axis = tuple[int, tuple[str, ...]]  # its length, and the labels of its entries


def _axes(
    column: str, field: Field, shape: tuple[int, ...], so_far: dict[str, _Axis], taken: Collection[str]
) -> list[str]:
    """Names of a field's axes: as it says, else those of an earlier field with the same labels, else of its own.

    One name stands for one length and one set of labels: where they differ, the later axis is the field's own.
    """
    names = []
    for number, length in enumerate(shape):
        axis = (length, field.labels if number == 0 else ())
        alike = [name for name, known in so_far.items() if axis[1] and known == axis]
        name = _free_name(field.dims[number], taken) if field.dims else next(iter(alike), "")
        if not name or name in names or so_far.get(name, axis) != axis:
            name = _free_name(f"{column}_{number}", {*taken, *so_far})
        so_far[name] = axis
        names.append(name)
    return names


def tree_of(attributes: Mapping[str, Any], nodes: Mapping[str, xarray.Dataset | xarray.DataTree]) -> xarray.DataTree:
    """A tree with these attributes and, by their paths, these datasets and trees below."""
    xr = import_extra("xarray", "to_xarray()")
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **nodes})


def frame_of(name: str, fields: Fields, settings: Settings | None, columns: Columns) -> pandas.DataFrame:
    """What `Records.to_pandas` returns, of all columns of one group."""
    pd = import_extra("pandas", "to_pandas()")
    made = pd.DataFrame(split_columns(columns, fields))
    known = column_fields(fields)
    made.attrs = {
        "name": name,
        "settings": settings,
        "units": {column: known[column].units for column in made},
        "descriptions": {column: known[column].description for column in made},
    }
    return made


def frame_of_runs(rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> pandas.DataFrame:
    """A row per run, of (what identifies it, its config)."""
    pd = import_extra("pandas", "to_pandas()")
    return pd.DataFrame([{**own, **_config_cells(config, own)} for own, config in rows])


def long_frame(runs: Iterable[tuple[str, Mapping[str, Any], pandas.DataFrame]]) -> pandas.DataFrame:
    """What `SetRecords.to_pandas` returns, of the (name, config, frame) of each run."""
    pd = import_extra("pandas", "to_pandas()")
    frames: list[pandas.DataFrame] = []
    attributes: dict[str, Any] = {}
    for name, config, records in runs:
        own = {"run": name, **_config_cells(config, {"run", *records})}
        # the dtype of one cell, also where there are no rows: no rows of no dtype would make floats of all runs' seeds
        cells = pd.DataFrame([own]).iloc[[0] * len(records)].set_axis(records.index)
        frames.append(pd.concat([cells, records], axis=1))
        attributes = attributes or dict(records.attrs)
        attributes |= {key: {**records.attrs[key], **attributes[key]} for key in ("units", "descriptions")}
    together = pd.concat(frames, ignore_index=True)
    together.attrs = attributes
    return together


def dataset_of_runs(name: str, runs: Sequence[tuple[str, Mapping[str, Any], xarray.Dataset]]) -> xarray.Dataset:
    """What `SetRecords.to_xarray` returns, of the (name, config, dataset) of each run."""
    xr = import_extra("xarray", "to_xarray()")
    parts = []
    for run, _, data in runs:
        if "step" not in data.dims:
            raise ValueError(f"a step of {name} occurs more than once in {run}: use to_pandas()")
        parts.append(data.drop_attrs(deep=False).expand_dims(run=[run]))
    taken = {variable for part in parts for variable in (*part.variables, *part.dims)}
    together = xr.concat(parts, "run", join="outer", data_vars="all", coords="different", compat="equals")
    cells = [_config_cells(config, taken) for _, config, _ in runs]
    for key in dict.fromkeys(key for own in cells for key in own):
        values = np.empty(len(cells), dtype=object)
        values[:] = [own.get(key) for own in cells]
        plain = values.tolist()
        one_type = len({type(value) for value in plain}) == 1
        together = together.assign_coords({key: ("run", np.array(plain) if one_type else values)})
    return together.assign_attrs(name=name)


def _config_cells(config: Mapping[str, Any], taken: Collection[Any]) -> dict[str, Any]:
    """A config's values as cells, lists and dicts as JSON; a key that is taken is `config.<key>`."""
    return {
        f"config.{key}" if key in taken else key: json.dumps(value) if isinstance(value, list | dict) else value
        for key, value in config.items()
    }


def pad(rows: Array, field: Field) -> Array:
    """Ragged rows as one array `(T, longest, ...)`: floats padded with nan, integers with 0, strings with ""."""
    longest = max((len(row) for row in rows), default=0)
    dtype = rows[0].dtype if len(rows) else np.dtype(field.dtype.replace("S", "U"))
    fill = np.nan if dtype.kind == "f" else np.zeros((), dtype)
    out = np.full((len(rows), longest, *field.inner), fill, dtype=dtype)
    for target, row in zip(out, rows, strict=True):
        target[: len(row)] = row
    return out


def _attributes(field: Field) -> dict[str, str]:
    found = {"units": field.units, "description": field.description}
    return {key: text for key, text in found.items() if text}


def _free_name(name: str, taken: Collection[str]) -> str:
    """A name for a dimension that no variable has."""
    while name in taken:
        name += "_"
    return name
