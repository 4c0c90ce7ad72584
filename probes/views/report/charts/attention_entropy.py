"""The charts of attention: the entropy of every head between its bound and that of attention spread evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes.views.pictures.attention_entropy import MARKS, REMARK, shares, some
from probes.views.pictures.axes import Columns, Settings, brief, finite
from probes.views.report.charts.axes import chart, colours, dots, labelled, line, over_steps
from probes.views.report.charts.layers import layer_rows
from probes.views.report.page import Chart


def attention_entropy_charts(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> list[Chart]:
    """The layers' means over the steps; of the last step a dot for each head between its bounds."""
    steps, (_, count, heads) = columns["step"], columns["entropy"].shape
    names = [brief(name) for name in labels] or [f"layer {i + 1}" for i in range(count)]
    made = []
    if len(steps) > 1:
        shown = some(count)
        data = [
            line(steps, shares(columns)[:, i], names[i], color=color)
            for i, color in zip(shown, colours(len(shown)), strict=True)
        ]
        made.append(over_steps("Entropy of attention", REMARK, data, y="share", yaxis={"range": [0, 1.03]}))
    data = []
    for field, name, color in MARKS:
        values, rows = finite(columns[field][-1]).reshape(-1), [text for text in labelled(names) for _ in range(heads)]
        which = [f"head {head + 1}" for _ in range(count) for head in range(heads)]
        found = dots(values, rows, name, color=color)
        data.append(
            found | {"text": which, "hovertemplate": f"%{{y}}, %{{text}}<br>{name}: %{{x:.4~g}}<extra></extra>"}
        )
    largest = float(np.nanmax(np.r_[finite(columns["uniform"][-1]).reshape(-1), 0.0]))
    remark = "each between its lower bound and log(keys that it sees)"
    look = layer_rows(names) | {"xaxis": {"range": [-0.03 * largest, 1.05 * largest]}}
    made.append(chart(f"Heads at step {int(steps[-1])}", remark, data, x="nats", **look))
    return made
