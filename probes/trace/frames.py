"""Records as xarray and pandas objects, with units and descriptions as attributes (extra `analysis`)."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.extras import needed
from probes.trace.columns import flat_columns, flat_fields
from probes.trace.layout import COLUMNS, Array, Field

if TYPE_CHECKING:
    import pandas
    import xarray

    from probes.trace.records import Records
    from probes.trace.runs import SetRecords
    from probes.trace.set import TraceSet
    from probes.trace.view import TraceView


def dataset_of(records: Records) -> xarray.Dataset:
    """See `Records.to_xarray`."""
    xr = needed("xarray", "to_xarray()")
    fields, columns = records.fields, records.read()
    taken = {"step", *COLUMNS, *fields}
    steps = columns["step"]
    row = "step" if len(np.unique(steps)) == len(steps) else _free("row", taken)
    coordinates: dict[str, Any] = {name: ((row,), columns[name], _attributes(field)) for name, field in COLUMNS.items()}
    variables: dict[str, Any] = {}
    for name, field in fields.items():
        values = columns[name]
        axes = [_free(f"{name}_{axis}", taken) for axis in range(len(field.shape))]
        if field.ragged:
            coordinates[f"{name}.count"] = ((row,), np.array([len(part) for part in values], dtype=np.int64))
            values = padded(values, field)
        if field.labels:
            coordinates[axes[0]] = ((axes[0],), np.array(field.labels))
        variables[name] = ((row, *axes), values, _attributes(field))
    attributes = {"name": records.name}
    if records.settings is not None:
        attributes["settings"] = json.dumps(records.settings)
    return xr.Dataset(variables, coordinates, attributes)


def tree_of(trace: TraceView) -> xarray.DataTree:
    """See `TraceView.to_xarray`."""
    xr = needed("xarray", "to_xarray()")
    root = xr.Dataset(attrs=identity(trace))
    return xr.DataTree.from_dict({"/": root, **{name: dataset_of(trace[name]) for name in trace}})


def identity(trace: TraceView) -> dict[str, Any]:
    """What tells one trace from another, as attributes that any file format can hold."""
    return {
        "file": str(trace.path),
        "uuid": trace.uuid,
        "created": trace.created,
        "seed": trace.seed,
        "config": json.dumps(trace.config),
    }


def frame_of(records: Records) -> pandas.DataFrame:
    """See `Records.to_pandas`."""
    pd = needed("pandas", "to_pandas()")
    fields = records.fields
    frame = pd.DataFrame(flat_columns(records.read(), fields))
    known = flat_fields(fields)
    frame.attrs = {
        "name": records.name,
        "settings": records.settings,
        "units": {column: known[column].units for column in frame},
        "descriptions": {column: known[column].description for column in frame},
    }
    return frame


def long_frame(records: SetRecords) -> pandas.DataFrame:
    """See `SetRecords.to_pandas`."""
    pd = needed("pandas", "to_pandas()")
    frames = []
    for run, part in records.items():
        frame = frame_of(part)
        own = {"run": run.name}
        own |= {f"config.{key}" if key in frame or key == "run" else key: _cell(run.config[key]) for key in run.config}
        # the dtype of one cell, also where there are no rows: no rows of no dtype would make floats of all runs' seeds
        cells = pd.DataFrame([own]).iloc[[0] * len(frame)].set_axis(frame.index)
        frames.append(pd.concat([cells, frame], axis=1))
        frames[-1].attrs = frame.attrs
    attributes = frames[0].attrs
    for frame in frames:
        for key in ("units", "descriptions"):
            attributes = {**attributes, key: {**frame.attrs[key], **attributes[key]}}
        frame.attrs = {}
    together = pd.concat(frames, ignore_index=True)
    together.attrs = attributes
    return together


def frame_of_runs(runs: TraceSet) -> pandas.DataFrame:
    """See `TraceSet.to_pandas`."""
    pd = needed("pandas", "to_pandas()")
    rows = []
    for run in runs:
        own = {"run": run.name, "created": run.created, "uuid": run.uuid}
        rows.append(own | {f"config.{key}" if key in own else key: _cell(run.config[key]) for key in run.config})
    return pd.DataFrame(rows)


def dataset_of_runs(records: SetRecords) -> xarray.Dataset:
    """See `SetRecords.to_xarray`."""
    xr = needed("xarray", "to_xarray()")
    parts = []
    for run, part in records.items():
        data = dataset_of(part)
        if "step" not in data.dims:
            raise ValueError(f"a step of {records.name} occurs more than once in {run.name}: use to_pandas()")
        parts.append(data.drop_attrs(deep=False).expand_dims(run=[run.name]))
    names = {name for part in parts for name in (*part.variables, *part.dims)}
    together = xr.concat(parts, "run", join="outer", data_vars="all", coords="different", compat="equals")
    for key in dict.fromkeys(key for run in records.runs for key in run.config):
        values = np.empty(len(parts), dtype=object)
        values[:] = [_cell(run.config.get(key)) for run in records.runs]
        plain = values.tolist()
        same = {type(value) for value in plain}
        name = f"config.{key}" if key in names else key
        together = together.assign_coords({name: ("run", np.array(plain) if len(same) == 1 else values)})
    return together.assign_attrs(name=records.name)


def tree_of_runs(runs: TraceSet) -> xarray.DataTree:
    """See `TraceSet.to_xarray`."""
    xr = needed("xarray", "to_xarray()")
    nodes: dict[str, Any] = {}
    for run in runs:
        with run.open() as trace:
            nodes[run.name] = xr.Dataset(attrs=identity(trace))
            nodes |= {f"{run.name}/{name}": dataset_of(trace[name]) for name in trace}
    return xr.DataTree.from_dict(nodes)


def _cell(value: Any) -> Any:
    """A config's value as one cell: lists and dicts as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def padded(rows: Array, field: Field) -> Array:
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


def _free(name: str, taken: Collection[str]) -> str:
    """A name for a dimension that no variable has."""
    while name in taken:
        name += "_"
    return name
