"""Pictures of all layers: how sharp each is over the steps, its trace and ranks in the end, how unlike they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, bars, finite, legend, over_steps, subject_of
from probes.views.pictures.layers import (
    few_numbers,
    layer_bars,
    layer_dots,
    layer_names,
    names_of,
    panels_for,
    steps_map,
)
from probes.views.pictures.style import GREY, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_layer_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Largest eigenvalue of each layer over the steps as a map; beside it the last step's, with traces and ranks."""
    top, steps = finite(columns["values"])[:, :, 0], columns["step"]
    count, several = top.shape[1], len(columns["step"]) > 1
    made, panels = panels_for(count, 4 if several else 3)
    last = {name: columns[name][-1] for name in columns if name != "step"}
    if several:
        steps_map(made, panels[0], steps, top)
        headline(panels[0], "Largest eigenvalue by layer", "colour on a log scale; empty: not positive")
    panels = panels[several:]
    at = f"At step {int(steps[-1])}" if several else f"Blocks of the {subject_of(settings)}, step {int(steps[-1])}"
    layer_bars(panels[0], top[-1], last["residuals"][:, 0], "largest eigenvalue")
    headline(panels[0], at, "bars: residuals, a bound on each error")
    layer_bars(panels[1], last["trace"], last["trace_stderr"], "trace")
    headline(panels[1], "Trace", "bars: one standard error")
    layer_dots(panels[2], last["effective_rank"], last["effective_rank_stderr"], "effective rank", color=ORANGE)
    layer_dots(panels[2], last["stable_rank"], last["stable_rank_stderr"], "stable rank")
    layer_dots(panels[2], last["size"], np.zeros(count), "parameters", color=GREY)
    few_numbers(panels[2])
    panels[2].set_xlim(0.7, 1.6 * float(np.max(last["size"])))
    panels[2].set_xlabel("directions; grey: all")
    headline(panels[2], "Ranks", "orange: effective, blue: stable; bars: one standard error")
    names = names_of(labels, count)
    for axes in made.axes[: 3 + several]:
        layer_names(axes, names if axes is made.axes[0] else [""] * count)
    return made


def heterogeneity_figure(columns: Columns, settings: Settings, labels: Sequence[str] = ()) -> Figure:
    """Distances between all layers at the last step as a map; beside it their mean over the steps, above its floor."""
    steps, last, several = columns["step"], finite(columns["distances"][-1]), len(columns["step"]) > 1
    count = len(last)
    made, panels = figure(2 if several else 1, size=(13.0 if several else 7.4, 5.6))
    image = panels[0].imshow(last, cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
    made.colorbar(image, ax=panels[0], label="Jensen-Shannon distance")
    names = names_of(labels, count)
    layer_names(panels[0], names)
    panels[0].grid(False)
    panels[0].set_xticks([])
    own = "; each by its 10th largest eigenvalue" if settings.get("normalise") == "tenth" else ""
    remark = f"0: alike, 1: nothing in common{own}; σ = {short(float(columns['sigma'][-1]), 2)}"
    if not several:
        mean, error = (float(columns[name][-1]) for name in ("mean", "mean_stderr"))
        floor = float(columns["mean_floor"][-1])
        remark += f"\nmean {short(mean, 2)} ± {short(error, 1)}; of a layer to itself {short(floor, 2)}"
    headline(panels[0], f"How unlike the layers' spectra are, step {int(steps[-1])}", remark)
    if several:
        bars(panels[1], steps, columns["mean"], columns["mean_stderr"], label="mean over all pairs")
        floor = finite(columns["mean_floor"])
        panels[1].plot(steps, floor, color=GREY, lw=1.3, ls=(0, (5, 3)), label="of a layer to itself")
        over_steps(panels[1], steps, columns["mean"])
        headline(panels[1], "Mean distance", "bars: one standard error; near the dashed line it is noise")
        panels[1].set_ylim(0, None)
        legend(panels[1])
    return made
