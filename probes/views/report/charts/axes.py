"""What the charts share: lines with error bars, bands, thresholds, axes, in plotly's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import brief, is_crowded, spreads
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, sequence
from probes.views.report.page import Chart

INK = "#222222"
# The page turns these colours over where its paper is dark.
PAPER = [[0, "#ffffff"], [0.3, "#c6dbef"], [0.6, "#4a98c9"], [1, "#08306b"]]
SIGNED = [[0, "#b2182b"], [0.25, "#ef8a62"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1, "#2166ac"]]
Trace = dict[str, Any]  # of plotly: one line, bar chart or map
_COLUMNS = 120  # of a map over the steps
_HOVER = "%{x}: %{y:.5~g}"


def numbers(values: Any, digits: int = 5) -> list[Any]:
    """As JSON has them: rounded to what can be seen, None for what cannot be drawn. Integers and texts as they are."""
    array = np.asarray(values)
    if array.dtype.kind not in "f":
        return array.tolist()
    if array.ndim > 1:
        return [numbers(row, digits) for row in array]
    found = [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in array.tolist()]
    return [int(value) if value is not None and value.is_integer() and abs(value) < 1e15 else value for value in found]


def colours(count: int) -> list[str]:
    """The first of the house's colours, or a sequence of so many."""
    return [BLUE, ORANGE, GREEN, GREY][:count] if count <= 4 else sequence(count)


def line(x: Any, y: Any, name: str = "", *, color: str = BLUE, errors: Any = None, **look: Any) -> Trace:
    """A line with a dot at each place, with error bars where `errors` is `(n,)` or, below and above, `(2, n)`."""
    many, name = is_crowded(x), plain(name)
    made: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": numbers(x),
        "y": numbers(y),
        "name": name,
        "showlegend": bool(name),
        "line": {"color": color, "width": 1.6},
        "marker": {"color": color, "size": 3 if many else 6},
        "hovertemplate": (f"{name}<br>" if name else "") + _HOVER + "<extra></extra>",
    }
    if errors is not None:
        made["error_y"] = _bars(errors, color, many)
        made["hovertemplate"] = made["hovertemplate"].replace("%{y:.5~g}", "%{y:.5~g} ± %{error_y.array:.2~g}")
        if np.ndim(errors) == 2:
            made["hovertemplate"] = made["hovertemplate"].replace(
                " ± %{error_y.array:.2~g}", " (+%{error_y.array:.2~g}, −%{error_y.arrayminus:.2~g})"
            )
    return merged(made, look)


def _bars(errors: Any, color: str, many: bool) -> dict[str, Any]:
    errors = np.asarray(errors, dtype=float)
    errors = np.where(np.isfinite(errors), np.maximum(errors, 0.0), 0.0)
    both = {"arrayminus": numbers(errors[0], 2), "symmetric": False} if errors.ndim == 2 else {}
    above = numbers(errors[1] if errors.ndim == 2 else errors, 2)
    look = {"type": "data", "color": color, "thickness": 1, "width": 0 if many else 3}
    return look | {"array": above} | both


def dots(x: Any, y: Any, name: str = "", *, color: str = BLUE, **look: Any) -> Trace:
    """Dots alone."""
    return line(x, y, name, color=color, **({"mode": "markers"} | look))


def bars(names: Sequence[Any], values: Any, name: str = "", *, color: str = BLUE, **look: Any) -> Trace:
    """A bar for each name, from below; from the left with `orientation="h"`."""
    across = look.get("orientation") == "h"
    places = {"y": labelled(names), "x": numbers(values)} if across else {"x": labelled(names), "y": numbers(values)}
    made = {"type": "bar", "name": plain(name), "showlegend": bool(name), "marker": {"color": color}, **places}
    return merged(
        made | {"hovertemplate": f"%{{{'yx'[not across]}}}: %{{{'xy'[not across]}:.4~g}}<extra></extra>"}, look
    )


def band(x: Any, low: Any, high: Any, name: str = "", *, color: str = BLUE) -> Trace:
    """The area between two lines, where both are known."""
    x, low, high = np.asarray(x, dtype=float), np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    seen = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[seen], low[seen], high[seen]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(np.r_[x, x[::-1]]),
        "y": numbers(np.r_[high, low[::-1]]),
        "fill": "toself",
        "fillcolor": f"{color}38",
        "line": {"width": 0, "color": color},
        "hoverinfo": "skip",
        "name": name,
        "showlegend": bool(name),
    }


def dashed(x: Any, y: Any, name: str = "", *, color: str = ORANGE, **look: Any) -> Trace:
    """A dashed line without dots: a threshold, a guide."""
    return line(x, y, name, color=color, **({"mode": "lines", "line": {"dash": "dash", "width": 1.4}} | look))


def threshold(x: Any, values: Any, what: str = "threshold") -> list[Trace]:
    """The threshold over the steps, with its last value in the legend; nothing where it is not known."""
    values = np.asarray(values, dtype=float)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return []
    last = short(float(values[known[-1]]), 3)
    changes = bool(np.ptp(values[known]) > 0)
    alone = {"mode": "markers", "marker": {"symbol": "line-ew-open", "size": 26}}
    look: dict[str, Any] = alone if len(x) == 1 else {}
    return [dashed(x, values, f"{what} ({'at the end ' if changes else ''}{last})", **look)]


def heat(x: Any, y: Any, z: Any, label: str, **look: Any) -> Trace:
    """A map: `z` is `(len(y), len(x))`."""
    made: Trace = {
        "type": "heatmap",
        "x": numbers(x),
        "y": numbers(y, 5),
        "z": numbers(z, 3),
        "colorscale": PAPER,
        "colorbar": {"title": {"text": label, "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 0.9},
        "hoverongaps": False,
    }
    return merged(made, look)


def layer_map(title: str, steps: Any, values: Any, labels: Sequence[str], what: str) -> list[Chart]:
    """By tensor: a map over the steps, bars for a single step, nothing where there is one tensor."""
    count = values.shape[1]
    if count < 2 or not np.isfinite(values).any():
        return []
    shown = [brief(name) for name in labels] or [f"tensor {i + 1}" for i in range(count)]
    height = max(320, min(900, 130 + 18 * count))
    axis = {"type": "category", "autorange": "reversed", "title": {"text": ""}, "showgrid": False, "automargin": True}
    if len(steps) == 1:
        data = bars(shown, values[0], orientation="h")
        return [chart(title, "", [data], x=what, xaxis={"type": "log"}, yaxis=axis, height=height)]
    rows = np.unique(np.linspace(0, len(steps) - 1, _COLUMNS).round().astype(int))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(np.where(values > 0, values, np.nan))[rows].T
    if not np.isfinite(z).any():
        return []
    low, high = float(np.nanmin(z)), float(np.nanmax(z))
    data = heat(steps[rows], range(count), z, what, colorscale="Viridis")
    data["y"] = labelled(shown)
    data["colorbar"] |= decades(low, high)
    data["hovertemplate"] = "%{y}<br>step %{x}<br>10^%{z:.2f}<extra></extra>"
    return [chart(title, "on a log scale; empty: not known, or zero", [data], x="step", yaxis=axis, height=height)]


def decades(low: float, high: float, most: int = 6) -> dict[str, Any]:
    """Ticks of a scale that is a logarithm, at powers of ten; at four places where there are not two of these."""
    if np.floor(high) - np.ceil(low) < 1:
        few = np.linspace(low, high, 4).tolist()
        return {"tickvals": few, "ticktext": [short(10.0**place, 2) for place in few]}
    first, last = int(np.ceil(low)), int(np.floor(high))
    every = max(1, -(-(last - first + 1) // most))
    places = list(range(last, first - 1, -every))[::-1]
    return {"tickvals": places, "ticktext": [short(10.0**place, 3) for place in places]}


def over_steps(title: str, remark: str, data: list[Trace], *, y: str = "", values: Any = (), **layout: Any) -> Chart:
    """A chart over the steps; on a log axis where the `values` spread. A word where nothing was known."""
    return chart(title, remark, data, x="step", y=y, log=spreads(np.asarray(values, dtype=float)), **layout)


def chart(
    title: str, remark: str, data: list[Trace], *, x: str = "", y: str = "", log: bool = False, **layout: Any
) -> Chart:
    """A chart with names of its axes; `layout` in plotly's words, merged into the axes that are made here."""
    base: dict[str, Any] = {
        "xaxis": {"title": {"text": plain(x)}},
        "yaxis": {"title": {"text": plain(y)}} | ({"type": "log"} if log else {}),
    }
    base = merged(base, layout)
    for name in ("xaxis", "yaxis"):
        if base[name].get("type") == "log":
            base[name] = log_ticks(data, name[0]) | base[name]
    steps = sorted({v for t in data for v in t.get("x", ()) if isinstance(v, int | float)}) if x == "step" else []
    if 0 < len(steps) <= 6:
        base["xaxis"] |= {"tickvals": steps, "ticktext": [short(step, 7) for step in steps]}
    if data and not any(_drawn(trace) for trace in data):
        base["annotations"] = [note("not known at any step")]
    return Chart(title, remark, data, base)


def log_ticks(data: list[Trace], which: str) -> dict[str, Any]:
    """Plain numbers on a log axis: at 1, 2 and 5 where it spans little, else at powers of ten."""
    values = [value for trace in data for value in trace.get(which, ()) if isinstance(value, int | float) and value > 0]
    span = float(np.log10(max(values) / min(values))) if values else 0.0
    if 0 < span < 0.5:
        return {"dtick": f"L{round_step(max(values) - min(values)):.10g}"}  # few powers of ten or none: even steps
    if span < 4 and values and min(values) > 1e-5 and max(values) < 1e6:
        return {"tickformat": ".3~r", "dtick": "D2" if span < 2.2 else 1}
    return {"exponentformat": "power", "dtick": max(1, round(span / 5))}


def round_step(width: float) -> float:
    """A step of 1, 2 or 5 times a power of ten of which about four fit."""
    power = 10.0 ** np.floor(np.log10(width / 4))
    return float(power * min((1, 2, 5, 10), key=lambda step: abs(np.log(step * power * 4 / width))))


def note(text: str) -> dict[str, Any]:
    """A quiet word in the middle of a chart."""
    place = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    return {"text": plain(text), "font": {"color": GREY}} | place


def tag(x: float, y: float, text: str) -> dict[str, Any]:
    """A name beside a point, which can be read on any colour."""
    look = {"font": {"size": 11, "color": "#000"}, "bgcolor": "rgba(255,255,255,0.8)", "borderpad": 2}
    place = {"x": x, "y": y, "xanchor": "left", "yanchor": "bottom", "xshift": 8, "yshift": 6, "showarrow": False}
    return {"text": plain(text)} | look | place


def labelled(texts: Sequence[Any]) -> list[str]:
    """Names of a user's as plotly may show them."""
    return [plain(str(text)) for text in texts]


def plain(text: str) -> str:
    """A text that plotly shows as it is: it reads tags, entities and templates in names."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "%&#123;")


def _drawn(trace: Trace) -> bool:
    values = trace.get("z") or trace.get("y") or ()
    flat = (v for row in values for v in (row if isinstance(row, list) else [row]))
    return any(value is not None for value in flat)


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`base` with what is in `more`, dicts in dicts too."""
    made = dict(base)
    for key, value in more.items():
        inner = made.get(key)
        made[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return made
