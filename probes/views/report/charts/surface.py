"""The charts of a loss surface: the last one as a map and in three dimensions, and cuts beside the quadratic model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings
from probes.views.pictures.style import BLUE, ORANGE
from probes.views.pictures.surface import (
    Trail,
    along,
    cuts_of,
    explained_by,
    heights_on,
    is_way,
    levels_of,
    named,
    names_of,
    trail_of,
)
from probes.views.report.charts.axes import Trace, chart, dashed, decades, dots, heat, line, log_ticks, numbers, tag
from probes.views.report.page import Chart

_FINE, _BETWEEN = 600, 20  # points of the way on a surface: at most, and from one network to the next
_HOVER = "step %{customdata[0]}<br>%{customdata[1]} off the surface<extra></extra>"
_HIGH = 420  # pixels
_SPREAD = 30.0  # between the least and the largest loss, from which on a log axis shows more


def surface_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """A map of the height above the lowest point, the surface, and a cut along each direction.

    The networks that the surface goes through are drawn on it.
    """
    found, cuts = trail_of(columns), cuts_of(columns)
    names, step = names_of(settings, found), int(columns["step"][-1])
    made = []
    if len(cuts) > 1:
        x, y, values = (np.asarray(columns[name][-1], dtype=float) for name in ("x", "y", "values"))
        made = [_map(x, y, values, names, step), _solid(x, y, values, names, step)]
        if found is not None:
            _draw_on_map(made[0], found, is_way(settings))
            _draw_on_solid(made[1], columns, found, is_way(settings))
            made = [_remarked(chart, explained_by(found)) for chart in made]
    for name, cut in zip(names, cuts, strict=True):
        data = [line(cut.t, cut.values, "loss", color=BLUE, mode="lines")]
        if np.isfinite(cut.quadratic).any():
            data.append(dashed(cut.t, cut.quadratic, "quadratic model", color=ORANGE))
        title = along(name) if len(cuts) > 1 else "Loss between two networks"
        made.append(chart(title, cut.remark, data, x=name, y="loss", yaxis={"range": list(cut.limits)}))
        if len(cuts) == 1 and found is not None:
            _name_ends(made[0], found, found.places[:, 0], heights_on(columns, found.places))
    return made


def _draw_on_map(made: Chart, found: Trail, joined: bool) -> None:
    """The way, on white so that it is seen on every colour, and its ends."""
    x, y = found.places.T
    if joined:
        under = line(x, y, color="#fff", mode="lines", line={"width": 5}, hoverinfo="skip")
        under.pop("hovertemplate")
        way = line(x, y, color=ORANGE, line={"width": 2.5})
        made.data.extend([under, way | {"customdata": _told(found), "hovertemplate": _HOVER}])
    _name_ends(made, found, x, y)


def _name_ends(made: Chart, found: Trail, x: Any, y: Any) -> None:
    """A star at the last network and rings at the others that are named, with their steps."""
    few = named(found)
    symbols = ["circle"] * (len(few) - 1) + ["star"]
    inner = ["#fff"] * (len(few) - 1) + [ORANGE]
    marker: Trace = {"symbol": symbols, "size": [10] * (len(few) - 1) + [14], "color": inner}
    marker |= {"line": {"color": ORANGE, "width": 2}, "opacity": 1}
    drawn = dots(x[few], y[few], color=ORANGE, marker=marker, mode="markers")
    made.data.append(drawn | {"customdata": [_told(found)[i] for i in few], "hovertemplate": _HOVER})
    made.layout["annotations"] = [tag(float(x[i]), float(y[i]), found.labels[i]) for i in few if np.isfinite(y[i])]


def _told(found: Trail) -> list[list[Any]]:
    """The step of each network, and how far off it is."""
    return [[int(step), short(float(off), 3)] for step, off in zip(found.steps, found.distances, strict=True)]


def _draw_on_solid(made: Chart, columns: Columns, found: Trail, joined: bool) -> None:
    """The way laid on the surface, whose height at a network is not its own loss where it lies off the plane."""
    if joined:
        ends = np.arange(len(found.places))
        fine = np.linspace(0, ends[-1], min(_FINE, 1 + _BETWEEN * int(ends[-1])))
        x, y = (np.interp(fine, ends, at) for at in found.places.T)
        z = heights_on(columns, np.stack([x, y], axis=1))
        way: Trace = {"type": "scatter3d", "mode": "lines", "x": numbers(x), "y": numbers(y), "z": numbers(z)}
        made.data.append(way | {"line": {"color": ORANGE, "width": 6}, "hoverinfo": "skip", "showlegend": False})
    few = named(found)
    x, y = found.places[few].T
    z = heights_on(columns, found.places[few])
    marker: Trace = {"color": ["#fff"] * (len(few) - 1) + [ORANGE], "size": 5, "line": {"color": ORANGE, "width": 2}}
    points: Trace = {"type": "scatter3d", "mode": "markers+text", "x": numbers(x), "y": numbers(y), "z": numbers(z)}
    points |= {"marker": marker, "text": [found.labels[i] for i in few], "textfont": {"size": 11}}
    points |= {"customdata": [_told(found)[i] for i in few], "hovertemplate": _HOVER, "showlegend": False}
    made.data.append(points)


def _remarked(made: Chart, text: str) -> Chart:
    return dataclasses.replace(made, remark="; ".join(filter(None, (made.remark, text))))


def _map(x: np.ndarray, y: np.ndarray, values: np.ndarray, names: tuple[str, ...], step: int) -> Chart:
    height, levels = values - np.nanmin(values), levels_of(values)
    least = levels[0] if len(levels) else 1.0
    z = np.log10(np.maximum(height, least))
    data = heat(x, y, z.T, "loss above the lowest", text=numbers(values.T), type="contour", colorscale="Viridis")
    low, high = (float(extreme) for extreme in (np.nanmin(z), np.max(z[np.isfinite(z)])))
    data["colorbar"] |= decades(low, high)
    data["line"] = {"color": "#fff", "width": 0.5}
    data["contours"] = {"start": low, "end": high, "size": (high - low) / max(1, len(levels) - 1) or 1.0}
    data["hovertemplate"] = "(%{x:.3~g}, %{y:.3~g})<br>loss %{text:.5~g}<extra></extra>"
    remark = f"from {short(float(np.nanmin(values)))} to {short(float(np.nanmax(values)))}; levels by the logarithm"
    square = {"scaleanchor": "x", "constrain": "domain", "constraintoward": "top", "showgrid": False}
    bare = {"showgrid": False, "constrain": "domain"}
    return chart(f"Loss, step {step}", remark, [data], x=names[0], y=names[1], yaxis=square, xaxis=bare)


def _solid(x: np.ndarray, y: np.ndarray, values: np.ndarray, names: tuple[str, ...], step: int) -> Chart:
    finite = values[np.isfinite(values)]
    log = bool(finite.size) and 0 < finite.min() < finite.max() / _SPREAD
    data = {
        "type": "surface",
        "x": numbers(x),
        "y": numbers(y),
        "z": numbers(values.T),
        "colorscale": "Viridis",
        "surfacecolor": numbers(np.log10(values.T) if log else values.T),
        "showscale": False,
        "contours": {"z": {"show": True, "width": 1, "color": "#ffffff", "usecolormap": False}},
        "hovertemplate": "(%{x:.3~g}, %{y:.3~g})<br>loss %{z:.5~g}<extra></extra>",
    }
    eye = {"eye": {"x": 1.3, "y": -1.5, "z": 1.4}, "center": {"x": 0.0, "y": 0.0, "z": -0.15}}
    scene: dict[str, Any] = {"aspectratio": {"x": 1, "y": 1, "z": 0.7}, "camera": eye}
    for axis, text in zip("xyz", (*names, "loss"), strict=True):
        scene[f"{axis}axis"] = {"title": {"text": text, "font": {"size": 11}}, "tickfont": {"size": 10}}
    scene["zaxis"] |= {"type": "log"} | log_ticks([{"z": finite.tolist()}], "z") if log else {}
    hidden = {"visible": False}
    remark = "drag to turn" + ("; the height is a logarithm" if log else "")
    return chart(f"Surface, step {step}", remark, [data], xaxis=hidden, yaxis=hidden, scene=scene, height=_HIGH)
