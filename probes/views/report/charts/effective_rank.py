"""The charts of ranks: how many directions activations and weights of each layer have, and how many units sleep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.views.pictures.axes import Columns, Settings, brief, finite
from probes.views.pictures.effective_rank import RANKS, SHARES, WEIGHT_RANKS, at_of, nearly
from probes.views.report.charts.axes import chart, dots, labelled, layer_map
from probes.views.report.charts.layers import layer_rows
from probes.views.report.page import Chart


def effective_rank_charts(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> list[Chart]:
    """A map of the effective ranks of activations; the last step's, those of weights, and shares of dormant units."""
    steps, ranks = columns["step"], finite(columns["effective_rank"])
    names = [brief(name) for name in labels] or [f"layer {i + 1}" for i in range(ranks.shape[1])]
    last, look = f"at step {int(steps[-1])}", layer_rows(names)
    made = layer_map(f"Effective rank of the layers' {at_of(settings)}", steps, ranks, names, "rank")
    log: dict[str, Any] = look | {"xaxis": {"type": "log"}}
    for fields, title, remark, x, layout in (
        (RANKS, f"Ranks of activations, {last}", f"of the layers' {at_of(settings)} over the data", "directions", log),
        (WEIGHT_RANKS, f"Ranks of weights, {last}", "beside the largest that they could have", "directions", log),
        (
            SHARES,
            f"Spread and dormant units, {last}",
            nearly(settings),
            "share",
            look | {"xaxis": {"range": [-0.03, 1.03]}},
        ),
    ):
        data = []
        for field, name, color in fields:
            found = dots(finite(columns[field][-1]), labelled(names), name, color=color)
            data.append(found | {"hovertemplate": f"%{{y}}<br>{name}: %{{x:.4~g}}<extra></extra>"})
        made.append(chart(title, remark, data, x=x, **layout))
    return made
