"""A trace for other programs: CSV and JSON, and Parquet with the extra `analysis`.

CSV: one file per probe, a row per record. Array fields have a column per entry (`values.0`, or by label), ragged
ones a cell with a JSON list. Numbers are written so that they read back exactly; `nan`, `inf` and `-inf` as such.
A field whose rows are arrays end to end, the weights of a network, has no columns.

TensorBoard and Weights & Biases: a folder that their programs read, see `probes.views.mirrored`.

JSON: one document, with the header of the trace, and for each probe its settings, fields with units, and rows. JSON
has no word for what is not a finite number: nan is null, infinities are the strings "Infinity" and "-Infinity".
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from probes.errors import UserError, check_choice, did_you_mean, first_few, import_extra
from probes.files import atomic_file, refuse_existing
from probes.trace.columns import column_fields, plain, split_columns, to_python
from probes.trace.layout import all_fields
from probes.views.mirrored import FOLDERS, write_folder

if TYPE_CHECKING:
    from probes.trace.records import Records
    from probes.trace.trace import Trace

FORMATS = ("csv", "json", "parquet", *FOLDERS)
_BLOCK = 4096  # records in memory at once


def export(
    trace: Trace,
    kind: str | None = None,
    output: Path | None = None,
    *,
    probes: Sequence[str] = (),
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write a trace as "csv", "json", "parquet", "tensorboard" or "wandb-offline"; the files or folders written.

    `output`: a file with the format's suffix, else a folder; None for beside the trace. `kind`: by default what
    the suffix says, else "csv". `probes`: the names of the groups to write, all by default. Each file appears
    when it is whole; `say` hears of fields that are left out. Raises `UserError` for an unknown format or name, an
    existing file (unless `overwrite`), and `MissingExtra`.
    """
    suffix = "" if output is None or output.is_dir() else output.suffix[1:]
    if kind is None:
        kind = suffix if suffix in FORMATS else "csv"
    check_choice("--format", kind, FORMATS)
    if suffix in FORMATS and suffix != kind:
        raise UserError(f"-o {output} is no name for --format {kind}", status=2)
    for package in ("pandas", "pyarrow") if kind == "parquet" else ():
        import_extra(package, "parquet")
    names = _chosen(trace, probes)
    if say is not None:
        for line in _left_out(trace, names):
            say(line)
    if kind in FOLDERS:
        return [write_folder(trace, kind, names, output, overwrite)]
    targets = _targets(trace, kind, output, names)
    refuse_existing(targets, overwrite)
    with ExitStack() as stack:  # all are written before the first one gets its name
        partial = [stack.enter_context(atomic_file(target)) for target in targets]
        if kind == "json":
            with partial[0].open("w", encoding="utf-8") as file:
                write_json(trace, names, file)
        else:
            for name, path in zip(names, partial, strict=True):
                _WRITERS[kind](trace[name], path)
    return targets


def _chosen(trace: Trace, probes: Sequence[str]) -> list[str]:
    there = trace.keys()
    for name in probes:
        if name not in there:
            known = ", ".join(there) or "none"
            raise UserError(f"{trace.path.name} has no probe {name!r}; it has {known}{did_you_mean(name, there)}")
    if not there:
        raise UserError(f"{trace.path.name} holds no records yet: there is nothing to export")
    return list(dict.fromkeys(probes)) or there


def _targets(trace: Trace, kind: str, output: Path | None, names: Sequence[str]) -> list[Path]:
    place = trace.path.parent if output is None else output
    if place.suffix == f".{kind}" and not place.is_dir():
        if kind != "json" and len(names) > 1:
            raise UserError(
                f"{place} is one file, and {trace.path.name} has {len(names)} probes: name a folder, or one --probe"
            )
        return [place]
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is a file: -o names a folder, or a .{kind} file")
    if kind == "json":
        return [place / f"{trace.path.stem}.json"]
    return [place / f"{trace.path.stem}-{name}.{kind}" for name in names]


def _left_out(trace: Trace, names: Sequence[str]) -> Iterator[str]:
    """A line for each group of records that is written without some of its fields."""
    for name in names:
        fields = trace[name].fields
        packed = [field for field in fields if field not in plain(fields)]
        if packed:
            yield f"{name}: {first_few(packed)} left out, no table holds a network: trace[{name!r}][field] does"


def write_csv(records: Records, path: Path) -> None:
    """The records as CSV in UTF-8, with a line of names at the top."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        fields = records.fields
        writer.writerow(column_fields(fields))
        for block in _blocks(records):
            writer.writerows(zip(*map(_texts, split_columns(block, fields).values()), strict=True))


def _texts(column: Any) -> list[Any]:
    """Cells: Python's numbers, which are written so that they read back exactly, and lists as JSON."""
    if column.dtype == object:
        return [json.dumps(_json(to_python(cell))) for cell in column]
    return column.tolist()


def write_json(trace: Trace, names: Sequence[str], file: TextIO) -> None:
    """The trace as one JSON document, its events included, written record by record."""
    shown = ("format_version", "uuid", "created", "seed", "config", "environment", "periods")
    head = {"file": trace.path.name} | {name: getattr(trace, name) for name in shown}
    file.write('{\n"trace": ' + _dumps(head) + ',\n"probes": {')
    for i, name in enumerate(names):
        file.write(("," if i else "") + f"\n{_dumps(name)}: ")
        _write_records(trace[name], file)
    file.write('\n},\n"events": ')
    _write_records(trace.events, file)
    file.write("\n}\n")


def _write_records(records: Records, file: TextIO) -> None:
    described = {}
    for name, field in all_fields(records.fields).items():
        told = {"shape": field.shape, "dtype": field.dtype, "units": field.units, "description": field.description}
        more = {"labels": field.labels, "parts": field.parts}  # what has parts has no place in the rows
        described[name] = told | {key: value for key, value in more.items() if value}
    file.write('{"settings": ' + _dumps(records.settings) + ', "fields": ' + _dumps(described) + ', "rows": [')
    for i, row in enumerate(itertools.chain.from_iterable(map(_rows, _blocks(records)))):
        file.write(("," if i else "") + "\n" + _dumps(row))
    file.write("]}")


def _rows(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    cells = ([to_python(cell) for cell in column] for column in block.values())
    for row in zip(*cells, strict=True):
        yield dict(zip(block, row, strict=True))


def _dumps(value: Any) -> str:
    return json.dumps(_json(value), allow_nan=False, ensure_ascii=False)


def _json(value: Any) -> Any:
    """A value that JSON knows."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value


def write_parquet(records: Records, path: Path) -> None:
    """The records as Parquet: the columns of `Records.to_pandas`, ragged fields as lists, units in the metadata."""
    frame = records.to_pandas()
    for name, field in records.fields.items():
        if field.ragged:
            frame[name] = [to_python(cell) for cell in frame[name]]
    frame.to_parquet(path, engine="pyarrow", index=False)


_WRITERS: dict[str, Callable[[Records, Path], None]] = {"csv": write_csv, "parquet": write_parquet}


def _blocks(records: Records) -> Iterator[dict[str, Any]]:
    """The records in parts that fit into memory."""
    for start in itertools.count(0, _BLOCK):
        block = records.read(start, start + _BLOCK)
        if len(block["step"]):
            yield block
        if len(block["step"]) < _BLOCK:
            return
