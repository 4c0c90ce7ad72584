"""The picture of a loss surface: its contours, and cuts through the middle beside the quadratic model."""

from __future__ import annotations

from typing import Any

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
    names = _DIRECTIONS.get(str(settings.get("directions")), ("direction 1", "direction 2"))
    _contours(made, map_, x, y, values)
    map_.set(xlabel=names[0], ylabel=names[1])
    headline(map_, "Loss", f"step {int(columns['step'][-1])}: {short(np.nanmin(values))} .. {short(np.nanmax(values))}")
    middle = len(x) // 2
    quadratic = np.asarray(columns["quadratic"][-1], dtype=float)
    for axis, (panel, name) in enumerate(zip((first, second), names, strict=True)):
        cut = (slice(None), middle) if axis == 0 else (middle, slice(None))
        _cut(panel, (x, y)[axis], values[cut], quadratic[cut])
        panel.set_xlabel(name)
        curvature, error = (np.asarray(columns[key][-1])[axis, axis] for key in ("curvature", "curvature_error"))
        headline(panel, f"Along {name}", f"curvature {short(curvature)} ± {short(error, 1)}")
    return made


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
    axes.contour(x, y, shown.T, levels=np.nanmin(values) + levels, colors="white", linewidths=0.4)
    axes.plot(0.0, 0.0, marker="+", color="white", ms=9)
    axes.grid(visible=False)
    bar = made.colorbar(drawn, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=8)


def _cut(axes: Axes, t: Any, values: Any, quadratic: Any) -> None:
    axes.plot(t, values, color=BLUE, label="loss")
    if np.isfinite(quadratic).any():
        axes.plot(t, quadratic, color=ORANGE, ls="--", lw=1.4, label="quadratic model")
    finite = values[np.isfinite(values)]
    if finite.size:  # the model leaves the picture long before the loss does
        margin = 0.08 * (finite.max() - finite.min() or 1.0)
        axes.set_ylim(finite.min() - margin, finite.max() + margin)
    axes.set_ylabel("loss")
    legend(axes)
