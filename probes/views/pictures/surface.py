"""The picture of a loss surface: its contours, and cuts through the middle beside the quadratic model.

The networks that it was laid through are drawn on it where they are projected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, is_crowded, legend
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEVELS = 14
_NAMED = 3  # networks that all have their names in the picture; of more the first and the last
_DIRECTIONS = {
    "random": ("random direction 1", "random direction 2"),
    "eigenvectors": ("the 1st eigenvector", "the 2nd eigenvector"),
    "gradient": ("the gradient", "the 1st eigenvector, beside it"),
    "trajectory": ("the 1st principal direction", "the 2nd principal direction"),
}


def surface_figure(columns: Columns, settings: Settings) -> Figure:
    """The last surface: contours that are closer where the loss is low, and a cut along each direction.

    A line between two networks is a cut alone.
    """
    found = trail_of(columns)
    names, cuts = names_of(settings, found), cuts_of(columns)
    made, panels = figure(len(cuts) + 1 if len(cuts) > 1 else 1, height=4.4)
    if len(cuts) > 1:
        map_ = panels.pop(0)
        x, y, values = (np.asarray(columns[name][-1], dtype=float) for name in ("x", "y", "values"))
        _contours(made, map_, x, y, values)
        _mark(map_, found, settings)
        map_.set(xlabel=names[0], ylabel=names[1], xlim=x[[0, -1]], ylim=y[[0, -1]])
        span = f"{short(np.nanmin(values))} .. {short(np.nanmax(values))}"
        headline(map_, f"Loss, step {int(columns['step'][-1])}", "; ".join(filter(None, (span, explained_by(found)))))
    for panel, name, cut in zip(panels, names, cuts, strict=True):
        panel.plot(cut.t, cut.values, color=BLUE, label="loss")
        if np.isfinite(cut.quadratic).any():
            panel.plot(cut.t, cut.quadratic, color=ORANGE, ls="--", lw=1.4, label="quadratic model")
        if len(cuts) == 1 and found is not None:
            _name_ends(panel, found, found.places[:, 0], heights_on(columns, found.places), boxed=False)
        panel.set(xlabel=name, ylabel="loss", ylim=cut.limits)
        legend(panel)
        headline(panel, along(name) if len(cuts) > 1 else "Loss between two networks", cut.remark)
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

    @property
    def remark(self) -> str:
        """The curvature in the middle."""
        return f"curvature {short(self.curvature)} ± {short(self.error, 1)}"


def cuts_of(columns: Columns) -> list[Cut]:
    """The cuts of the last surface: one along each direction."""
    x, values, quadratic, H, errors = (
        np.asarray(columns[name][-1], dtype=float)
        for name in ("x", "values", "quadratic", "curvature", "curvature_error")
    )
    if values.ndim == 1:
        return [Cut(x, values, quadratic, float(H[0, 0]), float(errors[0, 0]))]
    y = np.asarray(columns["y"][-1], dtype=float)
    i, j = len(x) // 2, len(y) // 2
    return [
        Cut(x, values[:, j], quadratic[:, j], float(H[0, 0]), float(errors[0, 0])),
        Cut(y, values[i], quadratic[i], float(H[1, 1]), float(errors[1, 1])),
    ]


class Trail(NamedTuple):
    """The networks that a surface was laid through.

    `steps` (m,), `places` (m, k) in units of the directions, `distances` (m,) from the surface in those of the
    parameters, `explained` (k,) of their variance, and `length`, the way along all places in units of the parameters.
    """

    steps: Any
    places: Any
    distances: Any
    explained: Any
    length: float

    @property
    def labels(self) -> list[str]:
        """The names of the networks."""
        return [f"step {step}" for step in self.steps]

    @property
    def off(self) -> float:
        """How far the farthest of them lies off the surface, as a share of the way."""
        return float(np.max(self.distances)) / self.length if self.length > 0 else 0.0


def trail_of(columns: Columns, row: int = -1) -> Trail | None:
    """The networks of one surface; None where it was laid through none."""
    if "path" not in columns or not len(columns["path"][row]):
        return None
    places, distances, explained, lengths = (
        np.asarray(columns[name][row], dtype=float) for name in ("path", "path_distance", "explained", "length")
    )
    way = float(np.linalg.norm(np.diff(places, axis=0) * lengths, axis=1).sum())  # the directions are orthogonal
    return Trail(np.asarray(columns["path_step"][row]), places, distances, explained, way)


def named(found: Trail) -> list[int]:
    """The networks that are named in the picture: all where they are few, else the first and the last."""
    last = len(found.steps) - 1
    return list(range(last + 1)) if last < _NAMED else [0, last]


def explained_by(found: Trail | None) -> str:
    """How much of the networks a plane through many of them shows."""
    if found is None or len(found.steps) <= len(found.explained) + 1:
        return ""
    shares = " + ".join(f"{short(100 * share, 2)} %" for share in found.explained)
    return f"explains {shares} of the variance; up to {short(100 * found.off, 2)} % of the way off"


def is_way(settings: Settings) -> bool:
    """Whether the networks follow each other in one training."""
    return settings.get("directions") == "trajectory"


def names_of(settings: Settings, found: Trail | None) -> tuple[str, ...]:
    """What the directions are."""
    kind = str(settings.get("directions"))
    if kind == "between" and found is not None:
        first, second, *third = found.labels
        return (f"from {first} to {second}", *(f"across, to {label}" for label in third))
    return _DIRECTIONS.get(kind, ("direction 1", "direction 2"))


def along(name: str) -> str:
    """The title of a cut along a direction of that name."""
    return name.capitalize() if name.startswith(("from ", "across, ")) else f"Along {name}"


def heights_on(columns: Columns, places: Any) -> Any:
    """`(m,)`, the last surface at places `(m, k)` on it, linear between its points; nan outside."""
    values = np.asarray(columns["values"][-1], dtype=float)
    i, share = _cells(columns["x"][-1], places[:, 0])
    found = values[i].T * (1 - share) + values[i + 1].T * share
    if values.ndim == 1:
        return found
    j, share = _cells(columns["y"][-1], places[:, 1])
    each = np.arange(len(places))
    return found[j, each] * (1 - share) + found[j + 1, each] * share


def _cells(axis: Any, at: Any) -> tuple[Any, Any]:
    """Between which points of an axis places lie, and how far from the first of them to the second."""
    axis = np.asarray(axis, dtype=float)
    i = np.clip(np.searchsorted(axis, at) - 1, 0, len(axis) - 2)
    share = (at - axis[i]) / (axis[i + 1] - axis[i])
    return i, np.where((share < 0) | (share > 1), np.nan, share)


def levels_of(values: Any) -> Any:
    """Heights above the lowest point in equal steps of their logarithm, for contours; none where it is flat."""
    height = values - np.nanmin(values)
    seen = height[np.isfinite(height) & (height > 0)]
    if not seen.size:
        return np.empty(0)
    return np.geomspace(max(np.quantile(seen, 0.02), 1e-6 * seen.max()), seen.max(), _LEVELS)


def _contours(made: Figure, axes: Axes, x: Any, y: Any, values: Any) -> None:
    """The levels as lines, filled."""
    levels = levels_of(values)
    if not len(levels):
        axes.text(0.5, 0.5, "flat", transform=axes.transAxes, ha="center", color=GREY)
        return
    shown = np.ma.masked_invalid(values)
    drawn = axes.contourf(x, y, shown.T, levels=np.nanmin(values) + np.concatenate([[0.0], levels]), cmap="viridis")
    drawn.set_rasterized(True)
    axes.contour(x, y, shown.T, levels=np.nanmin(values) + levels, colors="white", linewidths=0.4)
    axes.grid(visible=False)
    bar = made.colorbar(drawn, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize="small")


def _mark(axes: Axes, found: Trail | None, settings: Settings) -> None:
    """The middle; where there are networks, these, joined where they follow each other."""
    if found is None:
        axes.plot(0.0, 0.0, marker="+", color="white", ms=9)
        return
    x, y = found.places.T
    if is_way(settings):
        axes.plot(x, y, color="white", lw=3.4, solid_joinstyle="round")
        axes.plot(x, y, color=ORANGE, lw=1.8, marker="." if is_crowded(x) else "o", ms=4)
    _name_ends(axes, found, x, y, boxed=True)


def _name_ends(axes: Axes, found: Trail, x: Any, y: Any, *, boxed: bool) -> None:
    """A star at the last network and rings at the others that are named, with their steps."""
    box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8} if boxed else None
    place: dict[str, Any] = {"xytext": (7, 7), "textcoords": "offset points", "fontsize": "small", "bbox": box}
    for i in named(found):
        last = i == len(x) - 1
        axes.plot(x[i], y[i], "*" if last else "o", color=ORANGE, mfc=ORANGE if last else "white", ms=11 if last else 7)
        axes.annotate(found.labels[i], (x[i], y[i]), **place)
