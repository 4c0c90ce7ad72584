"""The picture of a loss surface: its contours, and cuts through the middle beside the quadratic model."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, legend
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline

_LEVELS = 14
_DIRECTIONS = {
    "random": ("random direction 1", "random direction 2"),
    "eigenvectors": ("the 1st eigenvector", "the 2nd eigenvector"),
    "gradient": ("the gradient", "the 1st eigenvector, beside it"),
}


def surface_figure(columns: Columns, settings: Settings) -> Figure:
    """The last surface: contours that are closer where the loss is low, and a cut along each direction."""
    made, (map_, first, second) = figure(3, height=4.4)
    x, y, values = (np.asarray(columns[name][-1], dtype=float) for name in ("x", "y", "values"))
    names = names_of(settings)
    _contours(made, map_, x, y, values)
    map_.set(xlabel=names[0], ylabel=names[1])
    headline(map_, "Loss", f"step {int(columns['step'][-1])}: {short(np.nanmin(values))} .. {short(np.nanmax(values))}")
    for panel, name, cut in zip((first, second), names, cuts_of(columns), strict=True):
        panel.plot(cut.t, cut.values, color=BLUE, label="loss")
        if np.isfinite(cut.quadratic).any():
            panel.plot(cut.t, cut.quadratic, color=ORANGE, ls="--", lw=1.4, label="quadratic model")
        panel.set(xlabel=name, ylabel="loss", ylim=cut.limits)
        legend(panel)
        headline(panel, f"Along {name}", f"curvature {short(cut.curvature)} ± {short(cut.error, 1)}")
    return made


class Cut(NamedTuple):
    """The last surface along one direction through the middle."""

    t: Any
    values: Any
    quadratic: Any
    curvature: float
    error: float

    @property
    def limits(self) -> tuple[float, float]:
        """Of the axis, by the loss: the model leaves the picture long before."""
        finite = self.values[np.isfinite(self.values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        margin = 0.08 * (high - low or 1.0)
        return low - margin, high + margin


def cuts_of(columns: Columns) -> list[Cut]:
    """Both cuts of the last surface."""
    x, y, values, quadratic, H, errors = (
        np.asarray(columns[name][-1], dtype=float)
        for name in ("x", "y", "values", "quadratic", "curvature", "curvature_error")
    )
    i, j = len(x) // 2, len(y) // 2
    return [
        Cut(x, values[:, j], quadratic[:, j], float(H[0, 0]), float(errors[0, 0])),
        Cut(y, values[i], quadratic[i], float(H[1, 1]), float(errors[1, 1])),
    ]


def names_of(settings: Settings) -> tuple[str, str]:
    """What the two directions are."""
    return _DIRECTIONS.get(str(settings.get("directions")), ("direction 1", "direction 2"))


def _contours(made: Figure, axes: Axes, x: Any, y: Any, values: Any) -> None:
    """Levels in equal steps of the logarithm of the height above the lowest point."""
    height = values - np.nanmin(values)
    seen = height[np.isfinite(height) & (height > 0)]
    if not seen.size:
        axes.text(0.5, 0.5, "flat", transform=axes.transAxes, ha="center", color=GREY)
        return
    levels = np.geomspace(max(np.quantile(seen, 0.02), 1e-6 * seen.max()), seen.max(), _LEVELS)
    shown = np.ma.masked_invalid(values)
    drawn = axes.contourf(x, y, shown.T, levels=np.nanmin(values) + np.concatenate([[0.0], levels]), cmap="viridis")
    drawn.set_rasterized(True)
    axes.contour(x, y, shown.T, levels=np.nanmin(values) + levels, colors="white", linewidths=0.4)
    axes.plot(0.0, 0.0, marker="+", color="white", ms=9)
    axes.grid(visible=False)
    bar = made.colorbar(drawn, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize="small")
