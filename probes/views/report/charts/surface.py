"""The charts of a loss surface: the last one as a map and in three dimensions, and cuts beside the quadratic model."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings
from probes.views.pictures.style import BLUE, ORANGE
from probes.views.pictures.surface import cuts_of, names_of
from probes.views.report.charts.axes import chart, dashed, decades, heat, line, numbers
from probes.views.report.page import Chart

_SPREAD = 30.0  # between the least and the largest loss, from which on a log axis shows more


def surface_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """A map of the height above the lowest point, the surface, and a cut along each direction."""
    x, y, values = (np.asarray(columns[name][-1], dtype=float) for name in ("x", "y", "values"))
    names, step = names_of(settings), int(columns["step"][-1])
    made = [_map(x, y, values, names, step), _solid(x, y, values, names, step)]
    for name, cut in zip(names, cuts_of(columns), strict=True):
        data = [line(cut.t, cut.values, "loss", color=BLUE, mode="lines")]
        if np.isfinite(cut.quadratic).any():
            data.append(dashed(cut.t, cut.quadratic, "quadratic model", color=ORANGE))
        remark = f"curvature {short(cut.curvature)} ± {short(cut.error, 1)}"
        made.append(chart(f"Along {name}", remark, data, x=name, y="loss", yaxis={"range": list(cut.limits)}))
    return made


def _map(x: np.ndarray, y: np.ndarray, values: np.ndarray, names: tuple[str, str], step: int) -> Chart:
    height = values - np.nanmin(values)
    least = np.min(height[height > 0], initial=np.inf)
    z = np.log10(np.maximum(height, least)) if np.isfinite(least) else np.zeros_like(height)
    data = heat(x, y, z.T, "loss above the lowest", text=numbers(values.T))
    low, high = float(np.nanmin(z)), float(np.nanmax(z[np.isfinite(z)], initial=0.0))
    data["colorbar"] |= decades(low, high)
    data["hovertemplate"] = "(%{x:.3~g}, %{y:.3~g})<br>loss %{text:.5~g}<extra></extra>"
    remark = f"from {short(float(np.nanmin(values)))} to {short(float(np.nanmax(values)))}; colours by the logarithm"
    square = {"scaleanchor": "x", "constrain": "domain", "showgrid": False}
    return chart(f"Loss, step {step}", remark, [data], x=names[0], y=names[1], yaxis=square, xaxis={"showgrid": False})


def _solid(x: np.ndarray, y: np.ndarray, values: np.ndarray, names: tuple[str, str], step: int) -> Chart:
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
    scene: dict[str, Any] = {"aspectmode": "cube", "camera": {"eye": {"x": 1.5, "y": -1.5, "z": 0.9}}}
    for axis, text in zip("xyz", (*names, "loss"), strict=True):
        scene[f"{axis}axis"] = {"title": {"text": text, "font": {"size": 11}}, "tickfont": {"size": 10}}
    scene["zaxis"] |= {"type": "log"} if log else {}
    hidden = {"visible": False}
    remark = "drag to turn" + ("; the height is a logarithm" if log else "")
    return chart(f"Surface, step {step}", remark, [data], xaxis=hidden, yaxis=hidden, scene=scene, height=460)
