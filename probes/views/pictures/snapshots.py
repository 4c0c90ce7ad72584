"""The picture of snapshots: how far the parameters went from the first one, how far to the last, by which path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.instruments.packing import PARAMETERS, squared_distance
from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finish, line
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probes.trace.records import Records

_READ = 1 << 30  # bytes of weights that are read for a picture,
_LEAST = 8  # or so many snapshots


class Trajectory(NamedTuple):
    """The path of the parameters through the snapshots, in units of the parameters; all `(snapshots,)` but the norm."""

    steps: Any
    from_first: Any
    to_last: Any
    length: Any
    norm: float  # of the first
    remark: str

    @property
    def relative(self) -> tuple[Any, Any]:
        """Both distances over the norm; nan where that is zero."""
        scale = self.norm or np.nan
        return self.from_first / scale, self.to_last / scale


def trajectory_of(columns: Columns, records: Records) -> Trajectory:
    """Through the snapshots of these rows, or an even choice of them where their weights are more than can be read."""
    fields = {name: field for name, field in records.fields.items() if field.parts and name.startswith(PARAMETERS)}
    every = records["step"]
    rows = np.flatnonzero(np.isin(every, columns["step"]))
    most = max(_LEAST, _READ // sum(field.row_bytes for field in fields.values()))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int))]

    def read(row: int) -> Mapping[str, Any]:
        return {name: values[0] for name, values in records.read(row, row + 1, only=fields).items()}

    first, last = read(rows[0]), read(rows[-1])
    squares, before = [], first
    for row in rows:
        here = read(row)
        squares.append([squared_distance(here, other) for other in (first, last, before)])
        before = here
    from_first, to_last, moves = np.sqrt(np.array(squares)).T
    some = "" if len(rows) == len(every) else f"through {len(rows)} of {len(every)} snapshots"
    return Trajectory(every[rows], from_first, to_last, np.cumsum(moves), float(np.sqrt(squared_distance(first))), some)


def snapshots_figure(columns: Columns, settings: Settings, records: Records) -> Figure:
    """The distances from the first and to the last snapshot, relative; the distance beside the length of the path."""
    path = trajectory_of(columns, records)
    made, (left, right) = figure(2)
    there, back = path.relative
    line(left, path.steps, there, label="from the first snapshot")
    line(left, path.steps, back, color=ORANGE, label="to the last snapshot")
    remark = f"over the norm of the first, {short(path.norm)}"
    finish(left, path.steps, np.r_[there, back], "Distance of the parameters", remark, ylabel="relative distance")
    line(right, path.steps, path.length, color=GREY, label="length of the path")
    line(right, path.steps, path.from_first, color=BLUE, label="distance from the first")
    finish(
        right,
        path.steps,
        np.r_[path.length, path.from_first],
        "Path of the parameters",
        path.remark,
        ylabel="parameter",
    )
    return made
