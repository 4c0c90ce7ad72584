"""The picture of a spectrum: eigenvalues over the steps, the outliers marked and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import short
from probes.outliers import Outliers, outliers
from probes.views.pictures.axes import (
    Columns,
    Settings,
    bars,
    end_label,
    finite,
    is_crowded,
    over_steps,
    scale,
    subject_of,
    whole_numbers,
)
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, note, sequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def spectrum_figure(columns: Columns, settings: Settings) -> Figure:
    """Eigenvalues over the steps with their residuals, outliers in orange; beside them the last step's."""
    several, subject = len(columns["step"]) > 1, subject_of(settings)
    end = {"SA": "Smallest", "LM": "Largest (in absolute value)"}.get(settings.get("which", "LA"), "Largest")
    made, panels = figure(2 if several else 1)
    if several:
        found = [outliers(row) for row in columns["values"]]
        axes = panels[0]
        if any(one.count for one in found):
            place = axes.get_subplotspec()
            assert place is not None
            axes.remove()
            grid = place.subgridspec(2, 1, height_ratios=[4, 1])
            axes = made.add_subplot(grid[0])
            axes.tick_params(labelbottom=False)
            _count(made.add_subplot(grid[1], sharex=axes), columns["step"], found)
        else:
            over_steps(axes, columns["step"], columns["values"])
        _over_steps(axes, columns, found)
        headline(axes, f"{end} eigenvalues of the {subject}")
    step = int(columns["step"][-1])
    _last(panels[-1], columns)
    headline(panels[-1], f"Step {step}" if several else f"{end} eigenvalues of the {subject}, step {step}")
    return made


def _over_steps(axes: Axes, columns: Columns, found: list[Outliers]) -> None:
    """A line per eigenvalue, and orange marks on what stands apart at each step."""
    steps, values, residuals = columns["step"], finite(columns["values"]), finite(columns["residuals"])
    k = values.shape[1]
    for i, colour in reversed(list(enumerate(sequence(k)))):
        width = 1.6 if i == 0 else 1.1
        bars(axes, steps, values[:, i], residuals[:, i], color=colour, marker="o", ms=3, capsize=2, lw=width)
    apart = values > np.array([[one.edge if one.count else np.inf] for one in found])
    if apart.any():
        row, column = np.nonzero(apart)
        look: dict[str, Any] = {"ms": 2, "mew": 0} if is_crowded(steps) else {"ms": 4.5, "mec": "white", "mew": 0.4}
        axes.plot(steps[row], values[row, column], "o", color=ORANGE, zorder=4, **look)
    scale(axes, values)
    axes.margins(x=0.09)
    for i in {0, k - 1}:
        if np.isfinite(values[-1, i]):
            number = str(i + 1).translate(_SUBSCRIPTS)
            end_label(axes, (steps[-1], values[-1, i]), f"λ{number}", color=GREY)
    axes.set_ylabel("eigenvalue")
    marked = "; orange: above the widest gap" if apart.any() else ""
    note(axes, f"bars: residuals, a bound on each error{marked}")


def _count(axes: Axes, steps: Any, found: list[Outliers]) -> None:
    """How many stand apart at each step."""
    counts = np.array([one.count for one in found])
    axes.plot(steps, counts, color=ORANGE, marker="o", ms=3.5, lw=1.2, drawstyle="steps-mid")
    axes.set_ylim(0, 1.25 * counts.max())
    whole_numbers(axes.yaxis, 3)
    axes.set_ylabel("outliers")
    over_steps(axes, steps)


def _last(axes: Axes, columns: Columns) -> None:
    """The last step's eigenvalues by their index, with the widest gap."""
    last, residuals = finite(columns["values"][-1]), finite(columns["residuals"][-1])
    index = np.arange(1, len(last) + 1)
    found = outliers(last)
    above = last > found.edge if found.count else np.zeros(len(last), dtype=bool)
    apart = f"{found.count} above the widest gap (× {short(found.ratio, 3)})"
    for mask, colour, label in ((above, ORANGE, apart), (~above, BLUE, "the rest")):
        if mask.any():
            look: dict[str, Any] = {"color": colour, "label": label, "marker": "o", "ms": 5, "capsize": 2, "ls": ""}
            bars(axes, index[mask], last[mask], residuals[mask], **look)
    if found.count:
        axes.axhline(found.edge, color=GREY, lw=0.9, ls=(0, (4, 3)))
        axes.legend(loc="upper right")
        note(axes, "dashed: the middle of the widest gap in log spacing")
    scale(axes, last)
    whole_numbers(axes.xaxis)
    axes.set_xlabel("index")
    axes.set_ylabel("eigenvalue")
