"""The charts of snapshots: how far the parameters went, and by which path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings
from probes.views.pictures.snapshots import trajectory_of
from probes.views.pictures.style import GREY, ORANGE
from probes.views.report.charts.axes import line, over_steps
from probes.views.report.page import Chart

if TYPE_CHECKING:
    from probes.trace.records import Records


def snapshots_charts(columns: Columns, settings: Settings, records: Records) -> list[Chart]:
    """The distances from the first and to the last snapshot, relative; the distance beside the length of the path."""
    path = trajectory_of(columns, records)
    there, back = path.relative
    data = [line(path.steps, there, "from the first snapshot"), line(path.steps, back, "to the last", color=ORANGE)]
    remark = f"over the norm of the first, {short(path.norm)}"
    distances = over_steps("Distance of the parameters", remark, data, y="relative distance", values=np.r_[there, back])
    data = [
        line(path.steps, path.length, "length of the path", color=GREY),
        line(path.steps, path.from_first, "distance"),
    ]
    values = np.r_[path.length, path.from_first]
    return [distances, over_steps("Path of the parameters", path.remark, data, y="parameter", values=values)]
