"""The charts of a spectrum: eigenvalues over the steps, how many stand apart, and the last step by index."""

from __future__ import annotations

import numpy as np

from probes.numbers import short
from probes.outliers import outliers
from probes.views.pictures.axes import Columns, Settings, finite, spreads, subject_of
from probes.views.pictures.style import BLUE, GREY, ORANGE, sequence
from probes.views.report.charts.axes import chart, dashed, dots, line, over_steps
from probes.views.report.page import Chart

_ENDS = {"SA": "Smallest", "LM": "Largest (in absolute value)"}


def spectrum_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """Eigenvalues over the steps with their residuals, the outliers in orange; beside them the last step's."""
    steps, values, residuals = columns["step"], finite(columns["values"]), finite(columns["residuals"])
    title = f"{_ENDS.get(settings.get('which', 'LA'), 'Largest')} eigenvalues of the {subject_of(settings)}"
    last = _last(values[-1], residuals[-1], f"At step {int(steps[-1])}" if len(steps) > 1 else title)
    if len(steps) == 1:
        return [last]
    k = values.shape[1]
    data = [
        line(steps, values[:, i], f"λ{i + 1}", color=colour, errors=residuals[:, i], showlegend=k <= 6)
        for i, colour in enumerate(sequence(k))
    ]
    found = [outliers(row) for row in values]
    apart = values > np.array([[one.edge if one.count else np.inf] for one in found])
    remark = "bars: residuals, a bound on each error"
    made = []
    if apart.any():
        row, column = np.nonzero(apart)
        data.append(dots(steps[row], values[row, column], color=ORANGE, hoverinfo="skip", marker={"size": 4.5}))
        data[-1].pop("hovertemplate")
        counts = np.array([one.count for one in found])
        counted = line(steps, counts, color=ORANGE, line={"shape": "hvh", "width": 1.4})
        made = [over_steps("How many stand apart", "above the widest gap in log spacing", [counted], y="outliers")]
        made[0].layout["yaxis"] |= {"rangemode": "tozero"} | ({"dtick": 1} if counts.max() <= 6 else {})
        remark += "; orange: above the widest gap"
    return [over_steps(title, remark, data, y="eigenvalue", values=values), last, *made]


def _last(values: np.ndarray, residuals: np.ndarray, title: str) -> Chart:
    """One step's eigenvalues by their index, with the widest gap."""
    index, found = np.arange(1, len(values) + 1), outliers(values)
    above = values > found.edge if found.count else np.zeros(len(values), dtype=bool)
    apart = f"{found.count} above the widest gap (× {short(found.ratio, 3)})"
    data = [
        dots(index[mask], values[mask], label, color=colour, errors=residuals[mask], marker={"size": 7})
        for mask, colour, label in ((above, ORANGE, apart), (~above, BLUE, "the rest" if found.count else ""))
        if mask.any()
    ]
    remark = "bars: residuals"
    if found.count:
        data.append(dashed([0.5, len(values) + 0.5], [found.edge] * 2, color=GREY, hoverinfo="skip"))
        remark += "; dashed: the middle of the widest gap in log spacing"
    layout = {"xaxis": {"tickmode": "auto", "nticks": 8, "tickformat": "d"}}
    return chart(title, remark, data, x="index", y="eigenvalue", log=spreads(values), **layout)
