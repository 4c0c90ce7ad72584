"""Pictures of sharpness over the steps, each against the threshold that the optimizer bears."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, band, bars, finite, legend, over_steps, scale, threshold_line
from probes.views.pictures.style import figure, headline


def sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """The largest eigenvalue with its residual and its threshold; beside it the preconditioned one if it is known."""
    both = bool(np.isfinite(columns["preconditioned"]).any())
    made, panels = figure(2 if both else 1)
    titles = ("Sharpness", "Preconditioned by the optimizer")
    what = ("largest eigenvalue of the Hessian", "largest eigenvalue")
    names = (
        ("value", "residual", "threshold"),
        ("preconditioned", "preconditioned_residual", "preconditioned_threshold"),
    )
    for axes, title, label, fields in zip(panels, titles, what, names, strict=False):
        value, residual, threshold = (columns[field] for field in fields)
        bars(axes, columns["step"], value, residual)
        threshold_line(axes, columns["step"], threshold, "stability threshold")
        _finish(axes, columns["step"], value, threshold)
        axes.set_ylabel(label)
        headline(axes, title, "bars: residuals, a bound on each error")
    return made


def _finish(axes: Axes, steps: Any, values: Any, thresholds: Any) -> None:
    """The axes and the legend of a panel."""
    scale(axes, np.r_[values, thresholds])
    over_steps(axes, steps, values)
    legend(axes)


def batch_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """The mean over batches in the band of its standard error, with the full-batch threshold."""
    made, (axes,) = figure()
    steps, values, errors = columns["step"], columns["value"], columns["stderr"]
    band(axes, steps, values, errors, label="± one standard error")
    threshold_line(axes, steps, columns["threshold"], "full-batch threshold")
    _finish(axes, steps, values, columns["threshold"])
    axes.set_ylabel("batch sharpness")
    batches = np.unique(columns["batches"])
    counted = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
    unknown = "" if np.isfinite(errors[np.isfinite(values)]).all() else "; no error is known for one batch"
    headline(axes, "Curvature of batches along their own gradients", f"mean over {counted} batches{unknown}")
    return made


def critical_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """2 / the smallest step that raises the loss, with the bracket that holds it."""
    made, (axes,) = figure()
    steps, values = columns["step"], finite(columns["value"])
    bracket = np.array([values - finite(columns["lower"]), finite(columns["upper"]) - values])
    bars(axes, steps, values, bracket)
    threshold_line(axes, steps, columns["threshold"])
    _finish(axes, steps, values, columns["threshold"])
    axes.set_ylabel("critical sharpness")
    boundless = int(np.isinf(columns["value"]).sum())
    more = f"; at {boundless} step{'s' * (boundless > 1)} infinite, not drawn" if boundless else ""
    title = f"Critical sharpness along the {settings.get('along', 'gradient')}"
    headline(axes, title, f"bars: the bracket that holds the value{more}")
    return made


def sam_figure(columns: Columns, settings: Settings) -> Figure:
    """The rise of the loss nearby, with its rounding error."""
    made, (axes,) = figure()
    steps, values = columns["step"], columns["value"]
    bars(axes, steps, values, columns["error"])
    _finish(axes, steps, values, [])
    radii = np.unique(columns["rho"])
    rho = short(float(radii[0])) if len(radii) == 1 else f"{short(float(radii[0]))} to {short(float(radii[-1]))}"
    axes.set_ylabel("rise of the loss")
    relative = " relative to the parameters" if settings.get("adaptive") else ""
    headline(axes, f"Rise of the loss at distance {rho}{relative}", "bars: rounding error")
    return made
