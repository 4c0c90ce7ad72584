"""The charts of sharpness over the steps, each with the threshold that the optimizer bears."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.pictures.sharpness import (
    CRITICAL_REMARK,
    CRITICAL_STEPS,
    CRITICAL_TITLE,
    SLOPE_REMARK,
    around,
    bracketed,
    relative_title,
)
from probes.views.report.charts.axes import band, line, over_steps, threshold
from probes.views.report.page import Chart


def sharpness_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The largest eigenvalue with its residual and threshold; the preconditioned one where it is known."""
    steps, made = columns["step"], []
    shown = [("Sharpness and its threshold 2/η", "largest eigenvalue of the Hessian", "value", "")]
    if np.isfinite(columns["preconditioned"]).any():
        shown.append(("Preconditioned by the optimizer", "largest eigenvalue", "preconditioned", "preconditioned_"))
    for title, label, field, prefix in shown:
        limit = finite(columns[f"{prefix}threshold"])
        data = [line(steps, columns[field], label, errors=columns[f"{prefix}residual"])]
        data += threshold(steps, limit, "stability threshold")
        remark = "bars: residuals, a bound on each error"
        made.append(over_steps(title, remark, data, y="sharpness", values=np.r_[finite(columns[field]), limit]))
    return made


def batch_sharpness_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The mean over batches in the band of its standard error."""
    steps, values, errors = columns["step"], finite(columns["value"]), finite(columns["stderr"])
    data: list[Any] = [] if len(steps) == 1 else [band(steps, values - errors, values + errors, "± one standard error")]
    data += [line(steps, values, "mean over batches", errors=errors), *threshold(steps, columns["threshold"])]
    data[-1 if len(data) == 1 else len(data) - 1 - bool(np.isfinite(columns["threshold"]).any())]["error_y"] |= {
        "visible": len(steps) == 1
    }
    batches = np.unique(columns["batches"])
    counted = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
    unknown = "" if np.isfinite(errors[np.isfinite(values)]).all() else "; no error is known for one batch"
    remark = f"mean over {counted} batches{unknown}"
    every = np.r_[values, finite(columns["threshold"])]
    title = "Curvature of batches along their own gradients"
    return [over_steps(title, remark, data, y="batch sharpness", values=every)]


def critical_sharpness_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """2 / the smallest step that raises the loss, with the bracket that holds it."""
    return [_bracketed(columns, f"Critical sharpness along the {settings.get('along', 'gradient')}")]


def critical_step_curve_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The critical step with its bracket, 2 / lambda_max with its bounds, and the learning rate."""
    steps, lr = columns["step"], finite(columns["lr"])
    data = [
        line(steps, columns[field], label, color=color, errors=around(columns, field))
        for field, label, color in CRITICAL_STEPS
    ]
    data += threshold(steps, lr, "learning rate")
    every = np.r_[finite(columns["critical"]), finite(columns["edge"]), lr]
    return [over_steps(CRITICAL_TITLE, CRITICAL_REMARK, data, y="step", values=every)]


def relative_critical_sharpness_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """2 / the smallest step that raises the watched loss, and the slope of that loss along the steps."""
    slope = [line(columns["step"], columns["slope"], errors=columns["slope_error"])]
    title = "Slope of the watched loss along the update"
    return [
        _bracketed(columns, relative_title(settings)),
        over_steps(title, SLOPE_REMARK, slope, y="change per unit of step", values=columns["slope"]),
    ]


def _bracketed(columns: Columns, title: str) -> Chart:
    steps, values, bracket, remark = bracketed(columns)
    data = [line(steps, values, "critical sharpness", errors=bracket), *threshold(steps, columns["threshold"])]
    every = np.r_[values, finite(columns["threshold"])]
    return over_steps(title, remark, data, y="2 / η_c", values=every)


def sam_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The rise of the loss nearby, with its rounding error."""
    radii = np.unique(columns["rho"])
    rho = short(float(radii[0])) if len(radii) == 1 else f"{short(float(radii[0]))} to {short(float(radii[-1]))}"
    title = f"Rise of the loss at distance {rho}{' relative to the parameters' if settings.get('adaptive') else ''}"
    data = [line(columns["step"], columns["value"], errors=columns["error"])]
    return [over_steps(title, "bars: rounding error", data, y="rise of the loss", values=columns["value"])]
