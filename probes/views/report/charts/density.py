"""The charts of a spectral density: the first and the last step, and the map of all."""

from __future__ import annotations

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, subject_of
from probes.views.pictures.density import apart_of, density_heights, drawn_density, made_of
from probes.views.pictures.style import GREY, ORANGE
from probes.views.report.charts.axes import band, chart, dashed, decades, dots, heat, line
from probes.views.report.page import Chart

_POINTS, _CELLS, _MOST = 400, 128, 80


def density_charts(columns: Columns, settings: Settings, spectrum: Columns | None) -> list[Chart]:
    """The density of the first and the last step on a log axis; the map over the steps where there are three."""
    last = len(columns["step"]) - 1
    subject = subject_of(settings)
    made = [_curve(columns, row, spectrum, subject) for row in dict.fromkeys((0, last))]
    if len(np.unique(columns["step"])) > 2:
        made.append(_map(columns, subject))
    return made


def _curve(columns: Columns, row: int, spectrum: Columns | None, subject: str) -> Chart:
    drawn = drawn_density(columns, row, _POINTS)
    mean = np.where(drawn.mean >= drawn.floor, drawn.mean, np.nan)
    low, high = np.maximum(drawn.mean - drawn.stderr, drawn.floor), np.maximum(drawn.mean + drawn.stderr, drawn.floor)
    curve = line(drawn.grid, mean, mode="lines", marker={"size": 3})
    curve["customdata"] = [float(f"{value:.2g}") if np.isfinite(value) else None for value in drawn.stderr]
    curve["hovertemplate"] = "eigenvalue %{x:.4~g}<br>density %{y:.3~g} ± %{customdata:.2~g}<extra></extra>"
    single = [drawn.single] * 2
    data = [band(drawn.grid, low, high), curve, dashed(drawn.grid[[0, -1]], single, color=GREY, hoverinfo="skip")]
    marked, gap = apart_of(columns, row, spectrum)
    if len(marked):
        heights = np.full(len(marked), 1.7 * drawn.floor)
        data.append(dots(marked, heights, gap, color=ORANGE, marker={"symbol": "triangle-up", "size": 9}))
        data[-1]["hovertemplate"] = "%{x:.5~g}<extra></extra>"
    limits = [float(np.log10(drawn.floor)), float(np.log10(3 * np.nanmax(drawn.mean)))]
    title = f"Spectral density of the {subject}, step {int(columns['step'][row])}"
    return chart(
        title,
        f"{made_of(columns, row, drawn)}; band: one standard error; dashed: one eigenvalue's height",
        data,
        x="eigenvalue",
        y="density",
        log=True,
        yaxis={"range": limits},
    )


def _map(columns: Columns, subject: str) -> Chart:
    rows = np.unique(np.linspace(0, len(columns["step"]) - 1, _MOST).round().astype(int))
    some = {name: columns[name][rows] for name in ("step", "nodes", "weights", "n")}
    found = density_heights(some, _CELLS)
    z = np.log10(found.density)
    data = heat(found.steps, found.grid, z, "density", zmin=float(z.min()), zmax=float(z.max()))
    data["colorbar"] |= decades(float(z.min()), float(z.max()))
    data["hovertemplate"] = "step %{x}<br>eigenvalue %{y:.4~g}<br>density 10^%{z:.2f}<extra></extra>"
    part = f"; {len(rows)} of {len(columns['step'])} steps" if len(rows) < len(columns["step"]) else ""
    remark = f"means over the probes, Gaussians of width σ = {short(found.sigma, 2)}{part}"
    title = f"Spectral density of the {subject} over the steps"
    return chart(title, remark, [data], x="step", y="eigenvalue", xaxis={"showgrid": False}, yaxis={"showgrid": False})
