"""The runs of a set of traces, and SetRecords: the rows of one group over many runs, in long form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probes.trace.configs import Config, flatten
from probes.trace.frames import dataset_of_runs, long_frame
from probes.trace.layout import Array, Field, all_fields, place_of
from probes.trace.reader import read_header
from probes.trace.records import Records
from probes.trace.trace import Trace

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclass(frozen=True)
class Run:
    """One run of a set, as its header was when the set was opened.

    Attributes:
        name: its file, relative to the folder of the set.
        path: its file.
        config: flattened, `{"optimizer.lr": 0.1}`; "seed" is the trace's own where the config has none.
        seed, uuid, created: of the trace.
        probes: the names of its groups of records.
    """

    name: str
    path: Path
    config: Config
    seed: int
    uuid: str
    created: str
    probes: tuple[str, ...]

    @classmethod
    def read(cls, name: str, path: Path) -> Run:
        """The run in a file. Raises `TraceError` when it is not a trace, and what else h5py says of damaged ones."""
        trace = Trace.open(path)
        with trace.reading() as file:
            header, probes = read_header(file), tuple(sorted(file["probes"]))
        config = flatten(header.config)
        config.setdefault("seed", header.seed)
        return cls(name, path, config, header.seed, header.uuid, header.created, probes)

    def open(self) -> Trace:
        """The trace, for reading."""
        return Trace.open(self.path)

    def records(self, name: str) -> Records:
        """The records of that name, without a look at the rest of the file."""
        return Records(name, place_of(name), Trace(self.path, None).reading)


class SetRecords:
    """The records of one name of all runs that have them: `records["value"]` is one column over all runs.

    Besides what `Records` have there is the column "run". The files are opened one after the other, whenever
    a column is asked for; `items` gives the records of each run without putting them together.

    Attributes:
        name: of the records.
        runs: the runs that have them.
    """

    def __init__(self, name: str, runs: Sequence[Run]) -> None:
        self.name = name
        self.runs = tuple(runs)

    def items(self) -> Iterator[tuple[Run, Records]]:
        """Each run and its records, one file at a time."""
        for run in self.runs:
            yield run, run.records(self.name)

    @property
    def fields(self) -> dict[str, Field]:
        """The fields that any of the runs has; of a field that differs, the first run's."""
        found: dict[str, Field] = {}
        for _, records in self.items():
            found = {**records.fields, **found}
        return found

    def __getitem__(self, field: str) -> Array:
        """One column over all runs: `(T, ...)`; where the runs' shapes differ, an object array `(T,)`.

        Runs without the field are left out, in "run" and the other columns they are there: `read` keeps rows
        together. Raises `KeyError` when no run has the field.
        """
        if field == "run":
            return concatenate([np.full(len(records), run.name) for run, records in self.items()])
        parts = []
        for _, records in self.items():
            with suppress(KeyError):
                parts.append(records[field])
        if not parts:
            known = ["run", *all_fields(self.fields)]
            raise KeyError(f"{self.name} has no field {field!r}; it has {', '.join(known)}")
        return concatenate(parts)

    def read(self) -> dict[str, Array]:
        """All columns that every run has, with the same rows: run, step, epoch, time, cost, and the fields."""
        parts = []
        for run, records in self.items():
            columns = records.read()
            parts.append({"run": np.full(len(columns["step"]), run.name), **columns})
        shared = [name for name in parts[0] if all(name in part for part in parts)]
        return {name: concatenate([part[name] for part in parts]) for name in shared}

    def __len__(self) -> int:
        return sum(len(records) for _, records in self.items())

    def __repr__(self) -> str:
        return f"SetRecords({self.name!r}, runs={len(self.runs)})"

    def to_pandas(self) -> pandas.DataFrame:
        """Long form, a row per record: run, a column per config key, and the columns of `Records.to_pandas`.

        A config key that is also a column is called `config.<key>`. What a run does not have is missing (nan).
        Raises `MissingExtra` when pandas is not installed.
        """
        return long_frame((run.name, run.config, records.to_pandas()) for run, records in self.items())

    def to_xarray(self) -> xarray.Dataset:
        """A Dataset along `run` and `step`; what a run did not measure at a step is nan (integers become floats).

        Each config key is a coordinate along run. Runs in which a step occurs more than once cannot be put side
        by side: `ValueError`. Raises `MissingExtra` when xarray is not installed.
        """
        return dataset_of_runs(self.name, [(run.name, run.config, part.to_xarray()) for run, part in self.items()])


def concatenate(parts: Sequence[Array]) -> Array:
    """Columns end to end; as an object array of rows when their shapes differ."""
    if len({part.shape[1:] for part in parts}) == 1 and not any(part.dtype == object for part in parts):
        return np.concatenate(parts)
    rows = [row for part in parts for row in part]
    out = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out
