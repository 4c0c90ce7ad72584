"""What a measurement has found before its end: kept in the trace as it comes, found again when it is done once more.

A surface of thousands of points takes hours on a large network. Its row is written when all of them are there; until
then the points lie in `/unfinished`, and whoever measures the same thing again begins with them. What they are values
of is told by a hash: points of other weights or on other directions are none of this measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from probes.trace.layout import UNFINISHED, Array, Field
from probes.trace.reader import count_rows
from probes.trace.records import Records
from probes.trace.table import Table, truncate

if TYPE_CHECKING:
    import torch

    from probes.trace.trace import Trace

_FIELDS = {
    "probe": Field((), "S64", "", "name of the probe"),
    "part": Field((), "S64", "", "which of its results"),
    "of": Field((), "S32", "", "a hash of what decides on the values"),
    "place": Field((None,), "int64", "", "where the values lie in the result, flat"),
    "value": Field((None,), "float64", "", "the values"),
}


class Unfinished:
    """One result of a measurement, as far as it is known.

    Attributes:
        values: `(size,)` float64, nan where nothing is known.
    """

    def __init__(self, trace: Trace | None, probe: str, step: int, part: str, of: str, size: int) -> None:
        self._trace, self._step = trace, step
        texts = {"probe": probe, "part": part, "of": of}
        self._names = {name: truncate(text, _FIELDS[name]) for name, text in texts.items()}
        self.values = np.full(size, np.nan)
        if trace is not None:
            for place, value in self._rows(trace):
                self.values[place[place < size]] = value[place < size]

    def _rows(self, trace: Trace) -> list[tuple[Array, Array]]:
        if not count_unfinished(trace):
            return []
        records = Records("unfinished", UNFINISHED, trace.reading)
        of_step = np.flatnonzero(records["step"] == self._step)
        if not len(of_step):  # the others may be many: a surface at each of a thousand steps
            return []
        rows = records.read(of_step[0], of_step[-1] + 1)
        mine = rows["step"] == self._step
        for name, text in self._names.items():
            mine &= rows[name] == text
        return [(rows["place"][i], rows["value"][i]) for i in np.flatnonzero(mine)]

    def tensor(self, shape: Sequence[int]) -> torch.Tensor:
        """What is known, in a shape."""
        import torch

        return torch.from_numpy(self.values.reshape(tuple(shape)).copy())

    def keep(self, values: Array) -> None:
        """Keep what is new in all that is known now, `(size,)`. It is in the file within a second."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        new = np.flatnonzero(np.isnan(self.values) & ~np.isnan(flat))
        self.values = flat.copy()
        if self._trace is None or not len(new):
            return
        writer = self._trace._require_writer()
        if UNFINISHED not in writer.tables:
            writer.declare(Table(UNFINISHED, _FIELDS))
        writer.append(UNFINISHED, self._step, None, 0.0, {**self._names, "place": new, "value": flat[new]})


def count_unfinished(trace: Trace) -> int:
    """How many rows a trace has of measurements that have not ended, or had not before."""
    with trace.reading() as file:
        return count_rows(file[UNFINISHED]) if UNFINISHED in file else 0


def told_unfinished(trace: Trace) -> Iterator[str]:
    """What was begun and has not ended, in a line each: `surface: 1200 numbers are there at step 300`."""
    if not count_unfinished(trace):
        return
    rows = Records("unfinished", UNFINISHED, trace.reading).read()
    found: Counter[tuple[str, int]] = Counter()
    for probe, step, values in zip(rows["probe"], rows["step"], rows["value"], strict=True):
        found[str(probe), int(step)] += len(values)
    for (probe, step), count in found.items():
        if probe not in trace or step not in trace[probe]["step"]:
            yield f"{probe}: {count} numbers are there at step {step} of a measurement that has not ended"
