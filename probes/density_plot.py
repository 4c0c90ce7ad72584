"""The picture of a spectral density: a log axis, the band of its standard error, the outliers marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.figures import BLUE, GREY, ORANGE, figure, note
from probes.formats import short
from probes.outliers import outliers

Columns = Mapping[str, Any]
# Width of the Gaussians that a density is drawn with, as a share of the spectrum's range: about the
# resolution of 64 Lanczos steps.
_WIDTH = 0.01


def density_curve(nodes: Any, weights: Any, grid: Any, sigma: float) -> tuple[Any, Any]:
    """Mean and standard error over the probes of the density on `grid` `(m,)`, with Gaussians of width sigma.

    `nodes` and `weights` are `(probes, steps)`; the curve integrates to 1.
    """
    z = (np.asarray(grid)[:, None, None] - nodes[None]) / sigma
    curves = (weights[None] * np.exp(-0.5 * z**2)).sum(axis=2) / (sigma * np.sqrt(2 * np.pi))
    probes = curves.shape[1]
    stderr = curves.std(axis=1, ddof=1) / np.sqrt(probes) if probes > 1 else np.full(len(curves), np.nan)
    return curves.mean(axis=1), stderr


def density_figure(columns: Columns, subject: str, spectrum: Columns | None = None) -> Figure:
    """The density of the last step (and, thin, the first) on a log axis, outliers marked below it."""
    made, (axes,) = figure(height=4.8)
    last, first = len(columns["step"]) - 1, 0
    rows = [last] if last == first else [first, last]
    seen = np.concatenate([columns["nodes"][r][columns["weights"][r] > 0] for r in rows])
    span = float(seen.max() - seen.min()) or max(abs(float(seen.max())), 1.0)
    sigma = _WIDTH * span
    grid = np.linspace(seen.min() - 5 * sigma, seen.max() + 5 * sigma, 2000)
    n = int(columns["n"][last])
    single = 1.0 / (n * sigma * np.sqrt(2 * np.pi))  # the height of the bump of one eigenvalue
    top = single
    for row in rows:
        mean, stderr = density_curve(columns["nodes"][row], columns["weights"][row], grid, sigma)
        top = max(top, float(mean.max()))
        step = int(columns["step"][row])
        if row == last:
            axes.plot(grid, mean, color=BLUE, label=f"step {step}", zorder=3)
            axes.fill_between(grid, mean * 1e-9, mean, color=BLUE, alpha=0.10, lw=0)
            axes.fill_between(
                grid,
                np.maximum(mean - stderr, mean * 1e-9),
                mean + stderr,
                color=BLUE,
                alpha=0.3,
                lw=0,
                label="± one standard error",
            )
        else:
            axes.plot(grid, mean, color=GREY, lw=1.1, label=f"step {step}", zorder=2)
    floor = single / 30
    axes.set_yscale("log")
    axes.set_ylim(floor, top * 3)
    axes.set_xlim(grid[0], grid[-1])
    axes.axhline(single, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=1)
    axes.text(grid[-1], single * 1.12, "one eigenvalue", color=GREY, fontsize=8.5, ha="right")
    _mark_outliers(axes, columns, last, spectrum, floor)
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("density")
    axes.set_title(f"Spectral density of the {subject}, step {int(columns['step'][last])}", pad=22)
    probes, steps = columns["nodes"][last].shape
    note(
        axes,
        f"{probes} probes of {steps} Lanczos steps, n = {n}; drawn with Gaussians of width σ = {short(sigma, 2)}"
        f" ({100 * _WIDTH:.0f} % of the range)",
    )
    axes.legend(loc="upper right")
    return made


def _mark_outliers(axes: Axes, columns: Columns, row: int, spectrum: Columns | None, floor: float) -> None:
    """Triangles at the eigenvalues above the widest gap: from the spectrum if it is there, else Ritz values."""
    step = columns["step"][row]
    if spectrum is not None and step in spectrum["step"]:
        values = spectrum["values"][list(spectrum["step"]).index(step)]
        found, what = outliers(values), "eigenvalues"
        marked = values[values > found.edge]
    else:
        # one probe's converged Ritz values: where its probes agree, which one is taken makes no difference
        values = columns["nodes"][row][0][columns["weights"][row][0] > 0]
        found, what = outliers(values), "Ritz values"
        marked = values[values > found.edge]
    if not found.count:
        return
    label = f"{found.count} {what if found.count > 1 else what[:-1]} above the widest gap (× {short(found.ratio, 3)})"
    axes.plot(
        marked,
        np.full(len(marked), floor * 1.6),
        "^",
        ms=7,
        color=ORANGE,
        mec="white",
        mew=0.6,
        label=label,
        zorder=4,
        clip_on=False,
    )
