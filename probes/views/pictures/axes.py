"""What the pictures of measurements over steps share: bars and bands from recorded errors, thresholds, log axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from probes.numbers import short
from probes.views.pictures.style import BLUE, GREY, ORANGE, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Columns = Mapping[str, Any]  # field -> (steps, ...), and "step"
Settings = Mapping[str, Any]  # of the probe, as the trace has them

_CROWDED = 60
_NAME = 44
_MATRICES = {"hessian": "Hessian", "gauss-newton": "Gauss-Newton matrix", "fisher": "Fisher matrix"}


def subject_of(settings: Settings) -> str:
    """The matrix that the numbers are of, in words."""
    return _MATRICES.get(settings.get("operator", ""), "curvature matrix")


def brief(name: Any) -> str:
    """The name of a layer as a legend has room for it: its middle is left out where it is long."""
    text = str(name)
    return text if len(text) <= _NAME else f"{text[: _NAME // 2]}…{text[-_NAME // 2 + 1 :]}"


def is_crowded(steps: Any) -> bool:
    """Whether there are so many points that markers and caps run into each other."""
    return len(steps) > _CROWDED


def finite(values: Any) -> Any:
    """As floats, with nan for what cannot be drawn."""
    values = np.asarray(values, dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def line(axes: Axes, steps: Any, values: Any, *, color: Any = BLUE, label: str = "", **look: Any) -> None:
    """A line with a dot at each step; `look` overrides how it is drawn, in matplotlib's words."""
    look = {"marker": ".", "ms": 3 if is_crowded(steps) else 7, "lw": 1.5} | look
    axes.plot(steps, finite(values), color=color, label=label or None, **look)


def bars(axes: Axes, steps: Any, values: Any, errors: Any, *, color: Any = BLUE, label: str = "", **look: Any) -> None:
    """A `line` with error bars: `errors` is `(steps,)` or, below and above the value, `(2, steps)`."""
    many = is_crowded(steps)
    look = {"marker": ".", "ms": 3 if many else 7, "lw": 1.5, "capsize": 0 if many else 2.5, "elinewidth": 0.9} | look
    errors = np.maximum(finite(errors), 0.0)
    axes.errorbar(steps, finite(values), yerr=errors, color=color, label=label or None, **look)


def band(axes: Axes, steps: Any, values: Any, errors: Any, *, color: Any = BLUE, label: str = "") -> None:
    """A line in the band of its errors, for a single step with a bar."""
    if len(steps) == 1:
        bars(axes, steps, values, errors, color=color)
        return
    values, errors = finite(values), finite(errors)
    line(axes, steps, values, color=color)
    axes.fill_between(steps, values - errors, values + errors, color=color, alpha=0.25, lw=0, label=label or None)


def threshold_line(axes: Axes, steps: Any, thresholds: Any, what: str = "threshold") -> None:
    """The threshold over the steps, dashed, with its last value in the legend; nothing where it is not known."""
    thresholds = finite(thresholds)
    known = np.flatnonzero(np.isfinite(thresholds))
    if not len(known):
        return
    style: dict[str, Any] = {"color": ORANGE, "lw": 1.3, "ls": (0, (5, 3)), "zorder": 1.5}
    last = short(float(thresholds[known[-1]]), 3)
    changes = bool(np.ptp(thresholds[known]) > 0)
    label = f"{what} ({'at the end ' if changes else ''}{last})"
    if len(steps) == 1:
        axes.axhline(thresholds[0], label=label, **style)
    else:
        axes.plot(steps, thresholds, label=label, **style)


def scale(axes: Axes, values: Any, which: Literal["x", "y"] = "y") -> None:
    """A log axis with plain numbers where the values spread, else a linear one."""
    if spreads(values):
        log_axis(axes, which)


def log_axis(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """A log axis with plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _: short(value, 3))
    axis.set_minor_formatter(lambda value, _: short(value, 3) if f"{value:e}"[0] in "25" or _is_narrow(axis) else "")


def _is_narrow(axis: Axis) -> bool:
    """Whether a log axis spans so little that it needs a number at every tick."""
    low, high = sorted(axis.get_view_interval())
    return bool(high < 3 * low)


def spreads(values: Any) -> bool:
    """Whether positive numbers range over so much that a linear axis would hide the small ones."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def over_steps(axes: Axes, steps: Any, *drawn: Any) -> None:
    """The step axis; a word in the middle where nothing of what is drawn was known."""
    axes.set_xlabel("step")
    if len(steps) == 1:
        axes.set_xticks(steps)
    else:
        whole_numbers(axes.xaxis, 8)
    if drawn and not any(np.isfinite(np.asarray(values, dtype=float)).any() for values in drawn):
        axes.text(0.5, 0.36, "not known at any step", transform=axes.transAxes, color=GREY, ha="center")


def whole_numbers(axis: Axis, most: int = 9) -> None:
    """At most so many ticks, none between whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=most))


def end_label(axes: Axes, point: tuple[Any, Any], text: str, *, color: Any, gap: float = 6, **look: Any) -> None:
    """What a line is, written behind its last point."""
    look |= {"xytext": (gap, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, point, color=color, **look)


def finish(
    axes: Axes, steps: Any, values: Any, title: str, remark: str = "", *, thresholds: Any = (), ylabel: str = ""
) -> None:
    """All of a panel over the steps but its lines: a scale for what they span, labels, title and legend."""
    scale(axes, np.r_[values, thresholds])
    over_steps(axes, steps, values)
    axes.set_ylabel(ylabel)
    headline(axes, title, remark)
    legend(axes)


def legend(axes: Axes) -> None:
    """A legend where it hides least, on white where it cannot but lie on a line; none without entries."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
