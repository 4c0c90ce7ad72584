"""Pictures of sharpness over the steps, each against the threshold that the optimizer bears."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, band, bars, finish, finite, threshold_line
from probes.views.pictures.style import figure

if TYPE_CHECKING:
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
    steps, values = columns["step"], finite(columns["value"])
    bracket = np.array([values - finite(columns["lower"]), finite(columns["upper"]) - values])
    bars(axes, steps, values, bracket)
    threshold_line(axes, steps, columns["threshold"])
    boundless = int(np.isinf(columns["value"]).sum())
    more = f"; at {boundless} step{'s' * (boundless > 1)} infinite, not drawn" if boundless else ""
    title = f"Critical sharpness along the {settings.get('along', 'gradient')}"
    remark = f"bars: the bracket that holds the value{more}"
    finish(axes, steps, values, title, remark, thresholds=columns["threshold"], ylabel="critical sharpness")
    return made


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
