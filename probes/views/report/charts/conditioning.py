"""The charts of Gauss-Newton conditioning: the spectrum, and kappa with its bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite
from probes.views.pictures.style import BLUE, GREY, ORANGE
from probes.views.report.charts.axes import bars, chart, dashed, line, note, over_steps
from probes.views.report.page import Chart

_SHOWN = 1e-18  # as in the picture: what is below is rounding in any precision
_POINTS = 600


def conditioning_charts(columns: Columns, settings: Settings) -> list[Chart]:
    """The eigenvalues at the first and the last step; kappa over the steps, and where the layers' factors stand."""
    steps = columns["step"]
    made = [_spectra(columns, settings)]
    if len(steps) > 1:
        bounds = finite(columns["bound"])
        data = [line(steps, columns["kappa"], "κ")]
        if np.isfinite(bounds).any():
            data.append(dashed(steps, bounds, "upper bound"))
        ranks = np.asarray(columns["rank"])
        span = f"{ranks.min()} .. {ranks.max()}" if ranks.min() < ranks.max() else f"{ranks[0]}"
        lower = "" if bool(np.all(columns["converged"])) else "; lower bounds where the matrix did not fit"
        values = np.r_[columns["kappa"], bounds]
        made.append(over_steps("Condition number", f"rank {span}{lower}", data, y="κ", values=values))
    return made + _layers(columns)


def _spectra(columns: Columns, settings: Settings) -> Chart:
    steps, data = columns["step"], []
    for row, colour in ((0, GREY), (len(steps) - 1, BLUE))[-len(steps) :]:
        values = np.asarray(columns["eigenvalues"][row], dtype=float)[::-1]
        values = values[values > _SHOWN * float(np.max(columns["largest"]))]
        if not len(values):
            continue
        some = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
        data.append(line(some + 1, values[some], f"step {steps[row]}", color=colour, mode="lines"))
        limit = [float(columns["threshold"][row])] * 2
        data.append(dashed([1, len(values)], limit, color=colour, line={"dash": "dot"}, hoverinfo="skip"))
    what = "with the loss's second derivative" if settings.get("loss_hessian") else "(1/N) JᵀJ"
    rank, kappa = int(columns["rank"][-1]), float(columns["kappa"][-1])
    neighbours = [short(float(value), 3) for value in columns["neighbours"][-1] if np.isfinite(value)]
    beside = f" (beside: {', '.join(neighbours)})" if neighbours else ""
    remark = f"dotted: threshold; last step: rank {rank}, κ = {short(kappa, 3)}{beside}"
    layout: dict[str, Any] = {} if data else {"annotations": [note("no eigenvalues: the matrix did not fit")]}
    title = f"Gauss-Newton eigenvalues, {what}"
    axes = {"x": "eigenvalue number", "y": "eigenvalue"}
    return chart(title, remark, data, **axes, log=True, **layout)


def _layers(columns: Columns) -> list[Chart]:
    """Of linear networks: how well conditioned is what stands behind and before each layer, at the last step."""
    data = []
    for field, label, colour in (("left", "behind it", BLUE), ("right", "before it", ORANGE)):
        ends = np.asarray(columns[field][-1], dtype=float).reshape(-1, 2)
        if not len(ends):
            continue
        kappas = np.divide(ends[:, 1], ends[:, 0], out=np.full(len(ends), np.nan), where=ends[:, 0] > 0)
        layers = [f"layer {i + 1}" for i in range(len(kappas))]
        data.append(bars(layers, kappas, label, color=colour))
    if not data:
        return []
    remark = "largest over smallest singular value of the product of the weights behind and before it, at the last step"
    return [chart("Condition numbers by layer", remark, data, y="κ", log=True, barmode="group")]
