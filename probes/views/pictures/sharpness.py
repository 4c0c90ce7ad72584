"""Pictures of sharpness over the steps, each against the threshold that the optimizer bears."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, band, bars, finite, legend, over_steps, scale, threshold_line
from probes.views.pictures.style import figure, note


def sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """The largest eigenvalue with its residual and its threshold; beside it the preconditioned one if it is known."""
    both = bool(np.isfinite(columns["preconditioned"]).any())
    made, panels = figure(2 if both else 1)
    _against(panels[0], columns, ("value", "residual", "threshold"))
    panels[0].set_title("Sharpness", pad=22)
    panels[0].set_ylabel("largest eigenvalue of the Hessian")
    if both:
        names = ("preconditioned", "preconditioned_residual", "preconditioned_threshold")
        _against(panels[1], columns, names)
        panels[1].set_title("Preconditioned by the optimizer", pad=22)
        panels[1].set_ylabel("largest eigenvalue")
    return made


def _against(axes: Axes, columns: Columns, names: tuple[str, str, str]) -> None:
    value, residual, threshold = (columns[name] for name in names)
    bars(axes, columns["step"], value, residual)
    threshold_line(axes, columns["step"], threshold, "stability threshold")
    scale(axes, np.r_[value, threshold])
    over_steps(axes, columns["step"], value)
    note(axes, "bars: residuals, a bound on each error")
    legend(axes)


def batch_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """The mean over batches in the band of its standard error, with the full-batch threshold."""
    made, (axes,) = figure()
    steps, values, errors = columns["step"], columns["value"], columns["stderr"]
    band(axes, steps, values, errors, label="± one standard error")
    threshold_line(axes, steps, columns["threshold"], "full-batch threshold")
    scale(axes, np.r_[values, columns["threshold"]])
    over_steps(axes, steps, values)
    axes.set_ylabel("batch sharpness")
    axes.set_title("Curvature of batches along their own gradients", pad=22)
    batches = np.unique(columns["batches"])
    counted = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
    unknown = "" if np.isfinite(errors[np.isfinite(values)]).all() else "; no error is known for one batch"
    note(axes, f"mean over {counted} batches{unknown}")
    legend(axes)
    return made


def critical_sharpness_figure(columns: Columns, settings: Settings) -> Figure:
    """2 / the smallest step that raises the loss, with the bracket that holds it."""
    made, (axes,) = figure()
    steps, values = columns["step"], finite(columns["value"])
    bracket = np.array([values - finite(columns["lower"]), finite(columns["upper"]) - values])
    bars(axes, steps, values, bracket)
    threshold_line(axes, steps, columns["threshold"])
    scale(axes, np.r_[values, columns["threshold"]])
    over_steps(axes, steps, values)
    axes.set_ylabel("critical sharpness")
    axes.set_title(f"Critical sharpness along the {settings.get('along', 'gradient')}", pad=22)
    boundless = int(np.isinf(columns["value"]).sum())
    more = f"; at {boundless} step{'s' * (boundless > 1)} infinite, not drawn" if boundless else ""
    note(axes, f"bars: the bracket that holds the value{more}")
    legend(axes)
    return made


def sam_figure(columns: Columns, settings: Settings) -> Figure:
    """The rise of the loss nearby, with its rounding error."""
    made, (axes,) = figure()
    steps, values = columns["step"], columns["value"]
    bars(axes, steps, values, columns["error"])
    scale(axes, values)
    over_steps(axes, steps, values)
    radii = np.unique(columns["rho"])
    rho = short(float(radii[0])) if len(radii) == 1 else f"{short(float(radii[0]))} to {short(float(radii[-1]))}"
    axes.set_ylabel("rise of the loss")
    relative = " relative to the parameters" if settings.get("adaptive") else ""
    axes.set_title(f"Rise of the loss at distance {rho}{relative}", pad=22)
    note(axes, "bars: rounding error")
    return made
