"""Pictures of sharpness over the steps, each against the threshold that the optimizer bears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, band, bars, finish, finite, threshold_line
from probes.views.pictures.style import BLUE, GREEN, GREY, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """The largest eigenvalue with its residual and its threshold; beside it the preconditioned one if it is known."""
    both = bool(np.isfinite(columns["preconditioned"]).any())
    made, panels = figure(2 if both else 1)
    shown = (
        ("Sharpness", "largest eigenvalue of the Hessian", "value", ""),
        ("Preconditioned by the optimizer", "largest eigenvalue", "preconditioned", "preconditioned_"),
    )
    for axes, (title, label, field, prefix) in zip(panels, shown, strict=False):
        value, residual, threshold = (columns[name] for name in (field, f"{prefix}residual", f"{prefix}threshold"))
        bars(axes, columns["step"], value, residual)
        threshold_line(axes, columns["step"], threshold, "stability threshold")
        remark = "bars: residuals, a bound on each error"
        finish(axes, columns["step"], value, title, remark, thresholds=threshold, ylabel=label)
    return made


def batch_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """The mean over batches in the band of its standard error, with the full-batch threshold."""
    made, (axes,) = figure()
    steps, values, errors = columns["step"], columns["value"], columns["stderr"]
    band(axes, steps, values, errors, label="± one standard error")
    threshold_line(axes, steps, columns["threshold"], "full-batch threshold")
    batches = np.unique(columns["batches"])
    counted = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
    unknown = "" if np.isfinite(errors[np.isfinite(values)]).all() else "; no error is known for one batch"
    title, remark = "Curvature of batches along their own gradients", f"mean over {counted} batches{unknown}"
    finish(axes, steps, values, title, remark, thresholds=columns["threshold"], ylabel="batch sharpness")
    return made


def critical_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """2 / the smallest step that raises the loss, with the bracket that holds it."""
    made, (axes,) = figure()
    _bracketed(axes, columns, f"Critical sharpness along the {settings.get('along', 'gradient')}")
    return made


def _bracketed(axes: Axes, columns: Columns, title: str) -> None:
    steps, values, bracket, remark = bracketed(columns)
    bars(axes, steps, values, bracket)
    threshold_line(axes, steps, columns["threshold"])
    finish(axes, steps, values, title, remark, thresholds=columns["threshold"], ylabel="critical sharpness")


def bracketed(columns: Columns) -> tuple[Any, Any, Any, str]:
    """Steps, values, how far the bracket reaches below and above them, and what is to be said of it."""
    steps, values = columns["step"], finite(columns["value"])
    bracket = np.array([values - finite(columns["lower"]), finite(columns["upper"]) - values])
    boundless = int(np.isinf(columns["value"]).sum())
    more = f"; at {boundless} step{'s' * (boundless > 1)} infinite, not drawn" if boundless else ""
    return steps, values, bracket, f"bars: the bracket that holds the value{more}"


def critical_step_curve_figure(columns: Columns, settings: Settings) -> Figure:
    """The critical step with its bracket, 2 / lambda_max with its bounds, and the learning rate."""
    made, (axes,) = figure()
    steps, lr = columns["step"], finite(columns["lr"])
    for field, label, color in CRITICAL_STEPS:
        bars(axes, steps, columns[field], around(columns, field), color=color, label=label)
    threshold_line(axes, steps, lr, "learning rate")
    drawn = np.r_[finite(columns["critical"]), finite(columns["edge"])]
    finish(axes, steps, drawn, CRITICAL_TITLE, CRITICAL_REMARK, thresholds=lr, ylabel="step")
    return made


CRITICAL_STEPS = (("critical", "raises the loss", BLUE), ("edge", "2 / λ₁", GREEN))
CRITICAL_TITLE = "Steps along the gradient"
CRITICAL_REMARK = "bars: the bracket of the critical step, the residual of λ₁"


def around(columns: Columns, field: str) -> Any:
    """How far the bounds of a field lie below and above it, `(2, steps)`."""
    value = finite(columns[field])
    return np.array([value - finite(columns[f"{field}_lower"]), finite(columns[f"{field}_upper"]) - value])


def relative_critical_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """2 / the smallest step that raises the watched loss, and the slope of that loss along the steps."""
    made, (above, below) = figure(2)
    _bracketed(above, columns, relative_title(settings))
    steps, slope = columns["step"], columns["slope"]
    bars(below, steps, slope, columns["slope_error"])
    below.axhline(0.0, color=GREY, lw=0.8, zorder=1)
    finish(
        below,
        steps,
        slope,
        "Slope of the watched loss along the update",
        SLOPE_REMARK,
        ylabel="change per unit of step",
    )
    return made


SLOPE_REMARK = "above 0 it rises at once; bars: rounding"


def relative_title(settings: Settings) -> str:
    """Which loss moves and which is watched, in a few words."""
    moves, watched = (
        str(settings.get(name, default)) for name, default in (("moves", "batch"), ("watched", "objective"))
    )
    own = {"batch": "the batch", "objective": "the objective", "update": "the optimizer"}
    return f"Critical sharpness of {own.get(watched, 'another loss')} along steps of {own.get(moves, 'another loss')}"


def sam_figure(columns: Columns, settings: Settings) -> Figure:
    """The rise of the loss nearby, with its rounding error."""
    made, (axes,) = figure()
    steps, values = columns["step"], columns["value"]
    bars(axes, steps, values, columns["error"])
    radii = np.unique(columns["rho"])
    rho = short(float(radii[0])) if len(radii) == 1 else f"{short(float(radii[0]))} to {short(float(radii[-1]))}"
    title = f"Rise of the loss at distance {rho}{' relative to the parameters' if settings.get('adaptive') else ''}"
    finish(axes, steps, values, title, "bars: rounding error", ylabel="rise of the loss")
    return made
