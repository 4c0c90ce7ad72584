"""The picture of a spectral density: a log axis, the band of its standard error, the outliers marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.numbers import short
from probes.outliers import outliers, single_ritz_values
from probes.views.pictures.axes import Columns, Settings, subject_of
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


class Drawn(NamedTuple):
    """One step's curve: mean and stderr `(m,)` on `grid`, the Gaussians' width, the height of a single eigenvalue."""

    grid: Any
    mean: Any
    stderr: Any
    sigma: float
    single: float

    @property
    def floor(self) -> float:
        """Where the drawing begins: a thirtieth of a single eigenvalue."""
        return self.single / 30


def drawn_density(columns: Columns, row: int, points: int = 1000) -> Drawn:
    """The curve of one step as it is drawn."""
    nodes, weights = columns["nodes"][row], columns["weights"][row]
    sigma = width_of(nodes[weights > 0])
    seen = nodes[weights > 0]
    grid = np.linspace(seen.min() - 5 * sigma, seen.max() + 5 * sigma, points)
    mean, stderr = density_curve(nodes, weights, grid, sigma)
    return Drawn(grid, mean, stderr, sigma, height_of_one(int(columns["n"][row]), sigma))


class Heights(NamedTuple):
    """All steps side by side: steps `(T,)`, grid `(m,)`, density `(m, T)` from `floor` on, the Gaussians' width."""

    steps: Any
    grid: Any
    density: Any
    floor: float
    sigma: float


def density_heights(columns: Columns, points: int = 600) -> Heights:
    """The densities of all steps on one grid, in the order of the steps."""
    order = np.argsort(columns["step"], kind="stable")
    steps, nodes, weights = (columns[name][order] for name in ("step", "nodes", "weights"))
    seen = nodes[weights > 0]
    sigma = width_of(seen)
    grid = np.linspace(seen.min() - 4 * sigma, seen.max() + 4 * sigma, points)
    means = np.array([density_curve(nodes[i], weights[i], grid, sigma)[0] for i in range(len(steps))])
    floor = height_of_one(int(columns["n"].max()), sigma) / 30
    return Heights(steps, grid, np.maximum(means.T, floor), floor, sigma)


def width_of(seen: Any) -> float:
    """The width of the Gaussians that a spectrum with these nodes is drawn with."""
    return _WIDTH * (float(seen.max() - seen.min()) or max(abs(float(seen.max())), 1.0))


def height_of_one(n: int, sigma: float) -> float:
    """The height of the bump of one eigenvalue of n."""
    return float(1.0 / (n * sigma * np.sqrt(2 * np.pi)))


def density_figures(columns: Columns, settings: Settings, spectrum: Columns | None) -> dict[str, Figure]:
    """The density, and the map of all steps where there are three or more."""
    made = {"": density_figure(columns, settings, spectrum)}
    if len(np.unique(columns["step"])) > 2:
        made["-map"] = density_map(columns, settings)
    return made


def density_figure(columns: Columns, settings: Settings, spectrum: Columns | None = None) -> Figure:
    """The density of the first and the last step on a log axis, outliers marked below the curves."""
    last = len(columns["step"]) - 1
    made, panels = figure(2 if last else 1, height=4.8)
    for axes, row in zip(panels, [0, last] if last else [0], strict=True):
        _draw(axes, columns, row)
        _mark_outliers(axes, columns, row, spectrum)
        axes.legend(loc="upper right")
        here = f"step {int(columns['step'][row])}"
        title = f"Spectral density of the {subject_of(settings)}, {here}" if axes is panels[0] else here.capitalize()
        headline(axes, title)
    panels[0].set_ylabel("density")
    return made


def density_map(columns: Columns, settings: Settings) -> Figure:
    """The log density of all steps side by side: steps to the right, eigenvalues upwards, one width for all."""
    made, (axes,) = figure(height=4.8)
    found = density_heights(columns)
    colours = axes.pcolormesh(
        _edges(found.steps),
        _edges(found.grid),
        found.density,
        norm="log",
        vmin=found.floor,
        vmax=float(found.density.max()),
        cmap="Blues",
        rasterized=True,
    )
    bar = made.colorbar(colours, ax=axes, label="density", pad=0.02)
    bar.outline.set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel("step")
    axes.set_ylabel("eigenvalue")
    remark = f"means over the probes, with Gaussians of width σ = {short(found.sigma, 2)}; white: no eigenvalue"
    headline(axes, f"Spectral density of the {subject_of(settings)} over the steps", remark)
    return made


def _edges(centres: Any) -> Any:
    """The edges of cells around increasing centres: halfway between neighbours."""
    centres = np.asarray(centres, dtype=float)
    middle = (centres[1:] + centres[:-1]) / 2
    return np.r_[2 * centres[0] - middle[0], middle, 2 * centres[-1] - middle[-1]]


def _draw(axes: Axes, columns: Columns, row: int) -> None:
    """The curve of one step with its band, from the bump of a thirtieth of an eigenvalue upwards."""
    drawn = drawn_density(columns, row)
    grid, mean, stderr, floor, single = drawn.grid, drawn.mean, drawn.stderr, drawn.floor, drawn.single
    axes.plot(grid, mean, color=BLUE, zorder=3)
    axes.fill_between(grid, floor, np.maximum(mean, floor), color=BLUE, alpha=0.10, lw=0)
    low = np.maximum(mean - stderr, floor / 10)
    high = np.maximum(mean + stderr, low)
    axes.fill_between(grid, low, high, color=BLUE, alpha=0.3, lw=0, label="± one standard error")
    axes.set_yscale("log")
    # room for the legend above the peak at zero, which most spectra have
    axes.set_ylim(floor, float(np.max(mean)) * 60)
    axes.set_xlim(grid[0], grid[-1])
    axes.axhline(single, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=1, label="height of one eigenvalue")
    axes.set_xlabel("eigenvalue")
    note(axes, made_of(columns, row, drawn))


def made_of(columns: Columns, row: int, drawn: Drawn) -> str:
    """What a density was made of, and what was done to it."""
    probes, steps = columns["nodes"][row].shape
    n, width = int(columns["n"][row]), short(drawn.sigma, 2)
    return f"{probes} probes of {steps} Lanczos steps, n = {n}; Gaussians of width σ = {width}"


def _mark_outliers(axes: Axes, columns: Columns, row: int, spectrum: Columns | None) -> None:
    """Triangles at the eigenvalues above the widest gap."""
    marked, gap = apart_of(columns, row, spectrum)
    if len(marked):
        height = np.full(len(marked), 1.7 * axes.get_ylim()[0])
        axes.plot(marked, height, "^", ms=7, color=ORANGE, mec="white", mew=0.6, label=gap, zorder=4)


def apart_of(columns: Columns, row: int, spectrum: Columns | None) -> tuple[Any, str]:
    """What lies above the widest gap, and that in words: of the spectrum if it is there, else of the Ritz values."""
    step = columns["step"][row]
    if spectrum is not None and step in spectrum["step"]:
        values, what = spectrum["values"][list(spectrum["step"]).index(step)], "eigenvalue"
        found = outliers(values)
    else:
        parts = columns["nodes"][row], columns["weights"][row], int(columns["n"][row])
        values, what = single_ritz_values(*parts), "Ritz value"
        found = outliers(values, least=2)
    if not found.count:
        return np.empty(0), ""
    gap = f"{found.count} {what}{'s' * (found.count > 1)} above the widest gap (× {short(found.ratio, 3)})"
    return values[values > found.edge], gap
