"""The charts of neural collapse: each metric where it should go when the network collapses."""

from __future__ import annotations

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.report.charts.axes import colours, line, over_steps
from probes.views.report.page import Chart

_ZERO = 1e-12  # what is not above is rounding, and has no place on a log axis


def neural_collapse_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """NC1 to NC3, NC0, and NC4 with the accuracy where they were measured."""
    towards = f"towards 0; last: {short(float(columns['nc0'][-1]), 3)}"
    shown = [
        (
            "Features and weights",
            "towards 0: within-class spread, simplex, self-duality",
            {"nc1": "NC1", "nc2": "NC2", "nc3": "NC3"},
        ),
        ("Sum of the weight's rows", towards, {"nc0": "NC0 = ‖Wᵀ1‖", "nc0_normalized": "NC0 / ‖W‖"}),
    ]
    if np.isfinite(columns["nc4"]).any():
        nearest = {"nc4": "NC4: agreement", "accuracy": "accuracy"}
        shown.append(("Nearest class mean", "towards 1: how often the head says the same", nearest))
    made = []
    for title, remark, fields in shown:
        data = [
            line(columns["step"], finite(columns[field]), label, color=colour)
            for (field, label), colour in zip(fields.items(), colours(len(fields)), strict=True)
            if np.isfinite(columns[field]).any()
        ]
        values = np.concatenate([finite(columns[field]) for field in fields])
        values = np.where(values > _ZERO, values, np.nan if "nc4" in fields else 0.0)
        made.append(over_steps(title, remark, data, values=() if "nc4" in fields else values))
    return made
