"""The pictures of a trajectory's function classes: the alpha-beta frontier, the map of min T, the competitors.

Importing this module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.numbers import short
from probes.views.pictures.axes import Columns, Settings, finite, log_axis, over_steps, spreads
from probes.views.pictures.style import BLUE, GREY, ORANGE, figure, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from landscape.regularity import Trajectory
    from probes.trace.records import Records

GAP = 0.1  # the paper takes pairs with alpha >= beta + 0.1
_CELLS = 140
_POINTS = 4000
# A steeper frontier is a sliver along the diagonal of the (alpha, beta) plane, so it is drawn over alpha - beta.
_STEEP = 5.0


def function_class_figures(columns: Columns, settings: Settings, records: Records) -> dict[str, Figure]:
    """The pictures by what their names end in; one that says why where there is no trajectory."""
    from probes.instruments.function_class import trajectory

    try:
        t = trajectory(records)
    except ValueError as error:
        return {"": _nothing(str(error))}
    return {"": frontier_figure(t), "-map": map_figure(t), "-conditions": conditions_figure(t)}


def frontier_figure(t: Trajectory) -> Figure:
    """The smallest beta at each gap alpha - beta, for all rows and for 99 % of them."""
    made, (axes,) = figure()
    gaps, *drawn = frontier_of(t)
    axes.plot(gaps, drawn[0], color=BLUE, label="all rows")
    axes.plot(gaps, drawn[1], color=ORANGE, ls=(0, (5, 2)), label="99 % of the rows")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: short(value, 3))
    heights = np.concatenate(drawn)
    signed_axis(axes, heights)
    top = axes.get_ylim()[1]
    axes.fill_between(gaps, drawn[0], np.full_like(gaps, top), color=BLUE, alpha=0.08, lw=0)
    axes.set_ylim(0 if np.nanmin(heights, initial=np.inf) <= 0 else None, top)
    if np.isnan(heights).all():
        axes.text(0.5, 0.5, "no β works at any of these gaps", transform=axes.transAxes, ha="center", color=GREY)
    beta, remark = at_the_gap(t)
    if np.isfinite(beta):
        axes.plot([GAP], [beta], "o", color=BLUE, ms=6)
    axes.set_xlabel("gap α − β")
    axes.set_ylabel("smallest β")
    headline(axes, "α-β-condition: the frontier", f"shaded: admissible; {remark}")
    axes.legend(loc="upper left")
    return made


def frontier_of(t: Trajectory) -> tuple[Any, Any, Any]:
    """Gaps, and the smallest beta at each: for all rows, and for 99 % of them."""
    from landscape.regularity import alpha_beta_frontier

    gaps = np.geomspace(0.01, 10, 121)
    every, most = (finite([found.beta for found in alpha_beta_frontier(t, gaps, quantile=q)]) for q in (1.0, 0.99))
    return gaps, every, most


def at_the_gap(t: Trajectory) -> tuple[float, str]:
    """The smallest beta at the paper's gap, and what there is to say of it."""
    from landscape.regularity import alpha_beta

    found = alpha_beta(t, GAP)
    by = "" if found.binding_step is None else f", set by step {found.binding_step}"
    some = "; some pair always works here (f(x_K) > f* in every row)" if found.vacuous else ""
    return found.beta, f"β = {short(found.beta, 3)} at gap {GAP}{by}{some}"


def map_figure(t: Trajectory) -> Figure:
    """min over the rows of T for pairs of alpha and beta, the admissible region outlined."""
    made, (axes,) = figure(height=5.0)
    draw_map(made, axes, t)
    return made


class LeastT(NamedTuple):
    """min over the rows of T at pairs: `values[i, j]` at `across[i]`, `betas[j]`, nan where alpha is below beta.

    `plain`: across is alpha, else alpha - beta. The frontier is the smallest beta at each of `gaps`, `low` where it
    begins.
    """

    across: Any
    betas: Any
    values: Any
    gaps: Any
    frontier: Any
    low: float
    plain: bool


def least_t(t: Trajectory, *, widest: float = 1.0, cells: int = _CELLS) -> LeastT:
    """The map of least T for gaps up to `widest`; over alpha, or over alpha - beta for a steep frontier."""
    from landscape.regularity import alpha_beta_frontier

    def betas_at(gaps: Any) -> Any:
        return np.array([found.beta for found in alpha_beta_frontier(t, gaps)])

    gaps = np.linspace(1e-3, 1.0, 100) * widest
    frontier = betas_at(gaps)
    known = np.isfinite(frontier)
    low, high = (frontier[known][0], frontier[known][-1]) if known.any() else (0.0, 1.0)
    plain = high - low <= _STEEP * widest
    rise = max(high - low, 0.25 * widest if high > 0 else widest)
    betas = np.linspace(max(0.0, low - 0.5 * rise if plain else 0.0), high + 0.5 * rise, cells)
    across = np.linspace(betas[0], betas[-1] + widest, cells) if plain else np.linspace(0, widest, cells)
    values = lowest(t, across, betas, sheared=not plain)
    if plain:
        values = np.where(across[:, None] > betas, values, np.nan)
        gaps = np.linspace(1e-3 * widest, across[-1] - betas[0], 200)
        frontier = betas_at(gaps)
    return LeastT(across, betas, values, gaps, frontier, float(low), bool(plain))


def draw_map(made: Figure, axes: Axes, t: Trajectory, *, widest: float = 1.0) -> None:
    """The map on these axes, for gaps up to `widest`; over alpha, or over alpha - beta for a steep frontier."""
    from matplotlib.colors import SymLogNorm

    across, betas, values, gaps, frontier, low, plain = least_t(t, widest=widest)
    size = float(np.nanmax(np.abs(values))) or 1.0
    least = max(float(np.nanquantile(np.abs(values[values != 0]), 0.05)), 1e-6 * size) if values.any() else 1e-3
    norm: Any = SymLogNorm(linthresh=least, vmin=-size, vmax=size)
    mesh = axes.pcolormesh(across, betas, values.T, cmap="RdBu", norm=norm, shading="nearest", rasterized=True)
    high_decade, low_decade = np.floor(np.log10(size)), np.ceil(np.log10(least))
    marks = 10.0 ** np.arange(high_decade, low_decade, -max(1, np.ceil((high_decade - low_decade) / 3)))
    bar = made.colorbar(mesh, ax=axes, label="least T over the rows", pad=0.02, ticks=[*-marks, 0.0, *marks])
    bar.ax.yaxis.set_major_formatter(lambda value, _: short(value, 3))
    bar.ax.minorticks_off()
    axes.plot(frontier + gaps if plain else gaps, frontier, color="black", lw=1.6)
    edge = np.array([low, betas[-1]])
    axes.plot(edge if plain else 0 * edge, edge, color="black", lw=1.6, clip_on=False)
    axes.plot(edge + GAP if plain else 0 * edge + GAP, edge, color="black", lw=1.0, ls=":")
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(betas[0], betas[-1])
    axes.grid(visible=False)
    axes.set_xlabel("α" if plain else "α − β")
    axes.set_ylabel("β")
    remark = f"outlined: admissible, T ≥ 0 in all {len(t)} rows and α > β; dotted: α = β + {GAP}"
    headline(axes, "α-β-condition: least T", remark)


def lowest(t: Trajectory, across: Any, betas: Any, *, sheared: bool) -> Any:
    """min over the rows of T, `(len(across), len(betas))`; `across` is alpha, or alpha - beta when sheared."""
    from landscape.regularity import margins

    if not sheared:
        return margins(t, across, betas)
    base, slope, excess = t.inner, t.drop, t.excess
    corners = np.stack([base - g * slope + b * excess for g in (across[0], across[-1]) for b in (betas[0], betas[-1])])
    keep, ahead = np.zeros(len(t), dtype=bool), np.ones(len(t), dtype=bool)
    keep[corners.argmin(axis=1)] = True
    # T is linear: a row that is above another in all corners never is the least
    for row in np.flatnonzero(keep):
        ahead &= (corners < corners[:, row, None]).any(axis=0)
    keep |= ahead
    rows = base[keep], slope[keep], excess[keep]
    return np.array([np.min(rows[0] - g * rows[1] + np.multiply.outer(betas, rows[2]), axis=1) for g in across])


class Condition(NamedTuple):
    """One condition at each row: its name and formula, what its constant could be there, which rows break it."""

    name: str
    formula: str
    values: Any
    failing: Any
    remark: str
    linear: bool = False

    @property
    def title(self) -> str:
        """Name and formula."""
        return f"{self.name}: {self.formula}" if self.formula else self.name


def conditions_of(t: Trajectory) -> list[Condition]:
    """What each condition's constant could be at each row: the least of them is the constant."""
    from landscape.regularity import aiming, alpha_beta, angles, polyak_lojasiewicz, quasar_convexity, restricted_secant

    above, infimum = t.drop, t.above("infimum")
    high, higher = above > t.resolution("final"), infimum > t.resolution("infimum")
    away = t.distance > 0
    shown = [
        ("PL", "‖g‖² / 2(f − f(x_K))", ratio(t.grad_norm**2, 2 * above, high), polyak_lojasiewicz(t)),
        ("Aiming", "⟨g, x − x_K⟩ / (f − f*)", ratio(t.inner, infimum, higher), aiming(t)),
        ("Quasar convexity", "⟨g, x − x_K⟩ / (f − f(x_K))", ratio(t.inner, above, high), quasar_convexity(t)),
        ("Restricted secant", "⟨g, x − x_K⟩ / ‖x − x_K‖²", ratio(t.inner, t.distance**2, away), restricted_secant(t)),
    ]
    made = []
    for name, formula, values, found in shown:
        bad = len(found.failing_rows)
        remark = f"least {short(found.value, 3)}: " + (f"fails in {bad} of {len(t)} rows" if bad else "holds")
        made.append(Condition(name, formula, values, found.failing_rows, remark))
    cosine = angles(t)
    remark = f"negative in {int(np.sum(cosine < 0))} of {len(t)} rows"
    made.append(Condition("Cosine of gradient and x − x_K", "", cosine, np.flatnonzero(cosine < 0), remark, True))
    needed = ratio(GAP * above - t.inner, t.excess, t.excess > 0)
    remark = f"largest {short(alpha_beta(t, GAP).beta, 3)}; orange: θ = {GAP} of quasar convexity fails"
    made.append(Condition(f"β that the row needs at gap {GAP}", "", needed, np.flatnonzero(needed > 0), remark))
    return made


def conditions_figure(t: Trajectory) -> Figure:
    """A panel for each condition."""
    made, panels = figure(3, rows=2, size=(14.5, 7.8))
    for axes, found in zip(panels, conditions_of(t), strict=True):
        rows(axes, t.steps, found.values, found.failing, linear=found.linear)
        if found.linear:
            axes.set_ylim(-1.05, 1.05)
        headline(axes, found.title, found.remark)
    for axes in panels[3:]:
        over_steps(axes, t.steps)
    return made


def ratio(top: Any, bottom: Any, known: Any) -> Any:
    """top / bottom, nan where it is not known."""
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=known)


def rows(axes: Axes, steps: Any, values: Any, failing: Any, *, linear: bool = False) -> None:
    """A dot for each row over its step, the failing ones in orange; of very many rows a part, with both extremes."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        axes.text(0.5, 0.5, "not known at any row", transform=axes.transAxes, color=GREY, ha="center")
        return
    ends = known[[np.argmin(values[known]), np.argmax(values[known])]]
    some = np.unique(np.concatenate([known[:: -(-len(known) // _POINTS)], ends]))
    bad = np.isin(some, failing)
    size = 3.0 if len(some) > 200 else 5.0
    for mask, colour in ((~bad, BLUE), (bad, ORANGE)):
        axes.plot(steps[some[mask]], values[some[mask]], ".", ms=size, color=colour, ls="")
    if not linear:
        signed_axis(axes, values[some])
    if values[some].min() < 0:
        axes.axhline(0, color=GREY, lw=1.0)


def signed_axis(axes: Axes, values: Any) -> None:
    """A log axis for positive numbers that spread, a symmetric one where some are not positive, else a linear one."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if spreads(values):
        log_axis(axes)
        if values.max() > 1e4 * values.min():  # labels at 2 and 5 would run into each other
            axes.minorticks_off()
        return
    sizes = np.abs(values[values != 0])
    if len(sizes) and values.min() <= 0 and sizes.max() > 30 * np.quantile(sizes, 0.1):
        decade = np.floor(np.log10(max(np.quantile(sizes, 0.1), 1e-6 * sizes.max())))
        axes.set_yscale("symlog", linthresh=10.0**decade, linscale=0.5)
        high = np.ceil(np.log10(sizes.max()))
        every = max(1, int(np.ceil((high - decade + 1) / 4)))
        marks = 10.0 ** np.arange(high, decade - 1, -every)
        axes.set_yticks([*(-marks if values.min() < 0 else []), 0.0, *marks])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: short(value, 3))
        low, top = values.min(), values.max()
        axes.set_ylim(1.3 * low if low < 0 else -0.2 * 10.0**decade, 1.5 * top if top > 0 else 10.0**decade)


def _nothing(why: str) -> Figure:
    made, (axes,) = figure()
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, transform=axes.transAxes, color=GREY, ha="center", wrap=True)
    return made
