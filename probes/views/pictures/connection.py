"""The picture of what lies between two networks: the loss on each way, eigenvalues along the path, dropped units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, bars, finite
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"straight": ORANGE, "aligned": BLUE, "trained": GREEN}
_LABELS = {"straight": "straight", "aligned": "straight, units aligned", "trained": "trained path"}


class Way(NamedTuple):
    """One way from a to b of the last record."""

    label: str
    color: str
    values: Any
    height: float
    error: float

    @property
    def barrier(self) -> str:
        """Its barrier, in words."""
        return f"barrier {short(self.height, 3)} ± {short(self.error, 1)}"


def ways_of(columns: Columns) -> Iterator[Way]:
    """Those that were measured."""
    for i, (name, label) in enumerate(_LABELS.items()):
        values = finite(columns[name][-1])
        if np.isfinite(values).any():
            height, error = (float(columns[field][-1][i]) for field in ("height", "height_error"))
            yield Way(label, _COLOURS[name], values, height, error)


def connection_figure(columns: Columns, settings: Settings) -> Figure:
    """The last connection: f on each way, the largest eigenvalue along the path, and the ends with units dropped."""
    eigenvalues, dropped = (finite(columns[name][-1]) for name in ("eigenvalue", "dropout"))
    panels = 1 + bool(np.isfinite(eigenvalues).any()) + bool(np.isfinite(dropped).any())
    made, axes = figure(panels)
    t, (first, *rest) = columns["t"][-1], axes
    for way in ways_of(columns):
        first.plot(t, way.values, color=way.color, label=f"{way.label}: {way.barrier}")
    first.plot([0, 1], columns["ends"][-1], color=GREY, ls="", marker="o", ms=6, zorder=3)
    low, high = first.get_ylim()
    first.set(xlabel="from a to b", ylabel="loss", ylim=(low, high + 0.3 * (high - low)))  # room for the legend
    first.legend(loc="upper left")
    headline(first, "Loss between two networks", "barrier: above the chord between the ends")
    if np.isfinite(eigenvalues).any():
        panel = rest.pop(0)
        bars(panel, t, eigenvalues, columns["eigenvalue_error"][-1], color=GREEN)
        panel.set(xlabel="along the path, from a to b", ylabel="largest eigenvalue of the Hessian")
        headline(panel, "Curvature along the path", "bars: residuals, a bound on each error")
    if rest:
        _ends(rest[0], columns, settings)
    return made


def _ends(axes: Axes, columns: Columns, settings: Settings) -> None:
    whole, dropped, errors = (finite(columns[name][-1]) for name in ("ends", "dropout", "dropout_error"))
    places = np.arange(2)
    axes.bar(places - 0.2, whole, 0.36, color=GREY, label="whole")
    axes.bar(places + 0.2, dropped, 0.36, yerr=errors, capsize=3, color=BLUE, label=dropped_words(settings))
    axes.set_xticks(places, ["a", "b"])
    axes.set(ylabel="loss", ylim=(0.0, 1.3 * axes.get_ylim()[1]))
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper left")
    headline(axes, "Dropout stability", "bars: one standard error of the mean over subnetworks")


def dropped_words(settings: Settings) -> str:
    """What was dropped."""
    return f"{short(100 * float(settings.get('share', np.nan)), 3)} % of the hidden units dropped"
