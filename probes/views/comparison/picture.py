"""A comparison of runs as a picture: a line per experiment, a band where it was repeated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.views.comparison.select import Comparison, Repeated
from probes.views.pictures.axes import scale
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline, literal, save, sequence, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLACES = 2000  # more than a picture has pixels
_AXES = {"time": "time [s]", "loss": "loss (training goes to the right)"}


def comparison_figure(comparison: Comparison, path: Path) -> Path:
    """Write the picture as PNG; the path written."""
    return save(drawn(comparison), path)


def drawn(comparison: Comparison) -> Figure:
    """The picture: a line for each experiment."""
    with style():
        made, (axes,) = figure()
        groups = comparison.groups
        colours = [BLUE, ORANGE, GREEN, GREY][: len(groups)] if len(groups) <= 4 else sequence(len(groups))
        spans = [_draw(axes, comparison, *drawn) for drawn in zip(groups, colours, strict=True)]
        scale(axes, np.concatenate(spans))
        if comparison.by == "loss":
            axes.invert_xaxis()
            scale(axes, comparison.grid(_PLACES), "x")
        axes.set_xlabel(_AXES.get(comparison.by, comparison.by))
        axes.set_ylabel(literal(comparison.title))
        remark = "mean; band: one standard error over the runs; " if comparison.repeated else ""
        of = f"{comparison.field} of {sum(len(group.names) for group in groups)} runs"
        headline(axes, of, remark + comparison.how)
        if len(groups) > 8:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        elif len(groups) > 1 or comparison.repeated:
            axes.legend()
        return made


def _draw(axes: Any, comparison: Comparison, group: Repeated, colour: Any) -> Any:
    """The line, the band, and dots where there is too little for a line; the values that they span."""
    # the group's own points: a line of few records must not be drawn through those of others
    own = np.unique(np.concatenate([line.x for line in group.curves]))
    x = own if len(own) <= _PLACES else comparison.grid(_PLACES)
    found = group.average(x)
    there = found.runs > 0
    x, mean = x[there], found.mean[there]
    error = np.nan_to_num(found.stderr[there])
    axes.plot(x, mean, color=colour, marker="o" if len(x) <= 25 else "", ms=3.5, label=literal(group.heading))
    if len(group.names) > 1:
        axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.18, lw=0)
    return np.r_[mean - error, mean + error]
