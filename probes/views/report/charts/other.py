"""The charts of records that no probe of the house made: every number over the steps."""

from __future__ import annotations

import numpy as np

from probes.trace.layout import COLUMNS, Field
from probes.views.pictures.axes import Columns, Settings
from probes.views.report.charts.axes import line, over_steps
from probes.views.report.page import Chart

_MOST = 6


def other_charts(columns: Columns, settings: Settings, fields: dict[str, Field]) -> list[Chart]:
    """A chart for each of the first few fields that are single numbers."""
    numbers = [name for name, values in columns.items() if name not in COLUMNS and _is_number(values)]
    made = []
    for name in numbers[:_MOST]:
        field = fields[name]
        data = [line(columns["step"], columns[name])]
        made.append(over_steps(name, field.description, data, y=field.units, values=columns[name]))
    return made


def _is_number(values: np.ndarray) -> bool:
    return values.ndim == 1 and values.dtype.kind in "fiu"
