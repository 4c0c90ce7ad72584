"""The charts of what lies between two networks: the loss on each way, eigenvalues along the path, dropped units."""

from __future__ import annotations

import numpy as np

from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.pictures.connection import dropped_words, ways_of
from probes.views.pictures.style import BLUE, GREEN, GREY
from probes.views.report.charts.axes import bars, chart, dots, line, numbers
from probes.views.report.page import Chart


def connection_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """f on each way of the last record; eigenvalues along the path and dropped units where they are known."""
    t, ends = columns["t"][-1], columns["ends"][-1]
    data = [
        line(t, way.values, f"{way.label}: {way.barrier}", color=way.color, mode="lines") for way in ways_of(columns)
    ]
    data.append(dots([0.0, 1.0], ends, "the networks", color=GREY))
    made = [chart("Loss between two networks", "barrier: above the chord", data, x="from a to b", y="loss")]
    eigenvalues, dropped, errors = (finite(columns[name][-1]) for name in ("eigenvalue", "dropout", "dropout_error"))
    if np.isfinite(eigenvalues).any():
        data = [line(t, eigenvalues, color=GREEN, errors=columns["eigenvalue_error"][-1])]
        words = "bars: residuals, a bound on each error"
        made.append(chart("Curvature along the path", words, data, x="from a to b", y="largest eigenvalue"))
    if np.isfinite(dropped).any():
        error = {"type": "data", "array": numbers(errors, 2)}
        data = [
            bars(["a", "b"], ends, "whole", color=GREY),
            bars(["a", "b"], dropped, dropped_words(settings), color=BLUE, error_y=error),
        ]
        made.append(chart("Dropout stability", "bars: one standard error", data, y="loss", barmode="group"))
    return made
