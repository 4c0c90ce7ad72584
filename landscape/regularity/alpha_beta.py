"""The alpha-beta-condition (arXiv 2410.12455, Definition 1) along a trajectory, by its exact frontier.

<g_k, x_k - x_K> >= alpha (f_k(x_k) - f_k(x_K)) - beta (f_k(x_k) - f_k^*) for all k, with alpha > beta >= 0. With
r_k = <g_k, x_k - x_K>, D_k = f_k(x_k) - f_k(x_K), E_k = f_k(x_K) - f_k^* >= 0 and the gap alpha - beta, row k says

    T_k = r_k - gap D_k + beta E_k >= 0,    so    beta(gap) = max_k (gap D_k - r_k) / E_k :

admissible pairs are a convex polyhedron, and nothing has to be searched on a grid. (The paper's captions print T with
a minus before beta; its own examples need the plus, which is what Definition 1 says.)

When every E_k > 0 some beta works for every gap, whatever the loss looks like: `vacuous` says so, and then only the
size of beta says something. beta / gap is the factor before 2 sigma_int^2 in the convergence theorems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.regularity.envelopes import lower_envelope, lowest_point
from landscape.regularity.trajectory import EPS, Array, Trajectory, as_array


@dataclass(frozen=True)
class AlphaBeta:
    """A pair on the frontier.

    Attributes:
        alpha: beta + gap.
        beta: the smallest that works at this gap, >= 0; inf when none does.
        gap: alpha - beta.
        ratio: beta / gap.
        binding_step: label of the step that sets beta (the first of equals); None when beta is clipped at 0.
        vacuous: every f_k(x_K) > f_k^*, so that some pair always works.
        binding_row: position of that step's row, which tells concatenated runs apart.
        left_out: rows that were left out for a quantile below 1.
    """

    alpha: float
    beta: float
    gap: float
    ratio: float
    binding_step: int | None
    vacuous: bool
    binding_row: int | None = None
    left_out: int = 0

    def __str__(self) -> str:
        if math.isinf(self.ratio):
            at = "any gap" if math.isnan(self.gap) else f"gap {self.gap:.3g}"
            return f"no beta works at {at}: step {self.binding_step} has f_k(x_K) = f_k^*, where beta does not help"
        if math.isinf(self.gap):
            return f"ratio {self.ratio:.6g} as the gap grows, reached by no gap (step {self.binding_step} binds)"
        bound = "no step binds" if self.binding_step is None else f"step {self.binding_step} binds"
        note = "; vacuous: some pair always works" if self.vacuous else ""
        return (
            f"alpha {self.alpha:.6g}, beta {self.beta:.6g}, gap {self.gap:.6g}, ratio {self.ratio:.6g} ({bound}{note})"
        )


def alpha_beta(trajectory: Trajectory, gap: float = 0.1, *, quantile: float = 1.0) -> AlphaBeta:
    """The smallest beta >= 0 for which (beta + gap, beta) is admissible; inf, no exception, when there is none.

    At a step with f_k(x_K) = f_k^* beta does not matter: r_k < gap D_k makes it inf, unless by rounding of the losses.

    Args:
        trajectory: rows of one run or of several.
        gap: alpha - beta > 0.
        quantile: below 1, the share 1 - quantile of the rows that need the largest beta is left out (that many whole
            rows, rounded down), since one outlier sets beta. At least one row stays.

    Raises:
        ValueError: a gap that is not positive and finite, a quantile outside (0, 1].

    Example:
        >>> from landscape.regularity import Trajectory, alpha_beta
        >>> t = Trajectory([-1.0, 1.0], [2.0, 1.0], [0.5, 0.5], 0.0, [1.0, 1.0], [1.0, 1.0])
        >>> print(alpha_beta(t, gap=1.0))
        alpha 6, beta 5, gap 1, ratio 5 (step 0 binds; vacuous: some pair always works)
    """
    if not (gap > 0 and math.isfinite(gap)):
        raise ValueError(f"gap must be positive and finite, not {gap}")
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile is the share of rows that is kept, in (0, 1], not {quantile}")
    needed = _needed(trajectory, gap)
    rows = len(needed)
    kept = max(1, math.ceil(quantile * rows * (1 - 8 * EPS)))
    largest = needed.max() if kept == rows else np.partition(needed, kept - 1)[kept - 1]
    row = int(np.argmax(needed == largest))
    return _result(trajectory, float(gap), float(needed[row]), row, rows - kept)


def alpha_beta_frontier(trajectory: Trajectory, gaps: Any, *, quantile: float = 1.0) -> list[AlphaBeta]:
    """`alpha_beta` at each gap: the lower border of the admissible set, convex and piecewise linear in the gap.

    One pass over the rows a gap. Raises as `alpha_beta`.

    Example:
        >>> from landscape.regularity import Trajectory, alpha_beta_frontier
        >>> t = Trajectory([-1.0, 1.0], [2.0, 1.0], [0.5, 0.5], 0.0, [1.0, 1.0], [1.0, 1.0])
        >>> [pair.beta for pair in alpha_beta_frontier(t, [0.5, 1.0])]
        [3.5, 5.0]
    """
    return [alpha_beta(trajectory, float(gap), quantile=quantile) for gap in np.atleast_1d(as_array(gaps, "gaps"))]


def best_ratio(trajectory: Trajectory) -> AlphaBeta:
    """The smallest beta / (alpha - beta) that any gap reaches, exact: the noise floor the theorems can promise.

    In u = 1 / gap the ratio is max(0, max_k (D_k - r_k u) / E_k), an envelope of lines, whose lowest point is at a
    vertex. Rows with E_k = 0 limit u instead. Of several gaps that reach it the largest is returned; if all large
    gaps do, the smallest of these; if all gaps do, 1.

    The infimum may lie at gap -> inf and be reached by no gap: then ratio is its value and gap, alpha and beta are
    inf. When no pair works at all, gap is nan, the others inf.

    Example:
        >>> from landscape.regularity import Trajectory, best_ratio
        >>> t = Trajectory([-1.0, 1.0], [2.0, 1.0], [0.5, 0.5], 0.0, [1.0, 1.0], [1.0, 1.0])
        >>> print(best_ratio(t))
        ratio 3 as the gap grows, reached by no gap (step 0 binds)
    """
    r, D, E = trajectory.inner, trajectory.drop, trajectory.excess
    free = E > 0
    lower, upper, row = _limits(r[~free], (D - trajectory.resolution("final"))[~free])
    if lower > upper * (1 + 8 * EPS):
        row = int(np.flatnonzero(~free)[row])
        return AlphaBeta(math.inf, math.inf, math.nan, math.inf, int(trajectory.steps[row]), False, row)
    upper = max(lower, upper)
    rows = np.append(np.flatnonzero(free), -1)
    intercepts, slopes = np.append(D[free] / E[free], 0.0), np.append(-r[free] / E[free], 0.0)
    lowest = lowest_point(intercepts, slopes, lower, upper)
    u, value = lowest.u, lowest.value
    if u == 0.0 and slopes[lowest.lines[0]] <= 0:  # flat from gap = inf on: take the smallest gap of the flat part
        rising = slopes > 0
        u = min(upper, float(np.min((value - intercepts[rising]) / slopes[rising], initial=math.inf)))
        u = 1.0 if math.isinf(u) else u
    if u == 0.0:
        row = int(rows[lowest.lines[0]])
        step = int(trajectory.steps[row])
        return AlphaBeta(math.inf, math.inf, math.inf, value, step, bool(free.all()), row)
    if value <= 0:
        return _result(trajectory, 1.0 / u, 0.0, 0, 0)
    return alpha_beta(trajectory, 1.0 / u)


def admissible(trajectory: Trajectory, alpha: float, beta: float) -> bool:
    """Whether alpha > beta >= 0 and no row violates the condition beyond rounding.

    Pairs that `alpha_beta` returns are admissible, as long as alpha and beta differ in float64. Raises `ValueError`
    for a pair that is not finite.

    Example:
        >>> from landscape.regularity import Trajectory, admissible
        >>> t = Trajectory([-1.0, 1.0], [2.0, 1.0], [0.5, 0.5], 0.0, [1.0, 1.0], [1.0, 1.0])
        >>> admissible(t, alpha=6.0, beta=5.0), admissible(t, alpha=2.0, beta=1.0)
        (True, False)
    """
    return violated(trajectory, alpha, beta) == 0.0 and alpha > beta >= 0


def violated(trajectory: Trajectory, alpha: float, beta: float) -> float:
    """The share of rows with T_k < 0 beyond rounding, in [0, 1]; `ValueError` for a pair that is not finite.

    Example:
        >>> from landscape.regularity import Trajectory, violated
        >>> t = Trajectory([-1.0, 1.0], [2.0, 1.0], [0.5, 0.5], 0.0, [1.0, 1.0], [1.0, 1.0])
        >>> violated(t, alpha=2.0, beta=1.0)
        0.5
    """
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        raise ValueError(f"alpha and beta must be finite, not ({alpha}, {beta}); beta = inf means that no pair works")
    r, D, E = trajectory.inner, trajectory.drop, trajectory.excess
    noise = 8 * EPS * (np.abs(r) + (abs(alpha) + abs(beta)) * np.abs(D) + abs(beta) * E)
    noise += abs(alpha - beta) * trajectory.resolution("final")
    return float((r - (alpha - beta) * D + beta * E < -noise).mean())


def margins(trajectory: Trajectory, alphas: Any, betas: Any) -> Array:
    """min_k T_k for each pair, `(len(alphas), len(betas))`: the heat-map of the paper's figures, exact.

    T is linear along either axis, so that one lower envelope of lines gives a whole row (or column) of the map: a few
    passes over the trajectory for each of the fewer of alphas and betas, in the memory of a few of its fields.

    Raises:
        ValueError: alphas or betas that are empty or not finite vectors.

    Example:
        >>> from landscape.regularity import Trajectory, margins
        >>> t = Trajectory([-1.0, 1.0], [2.0, 1.0], [0.5, 0.5], 0.0, [1.0, 1.0], [1.0, 1.0])
        >>> margins(t, alphas=[2.0, 6.0], betas=[1.0, 5.0]).tolist()
        [[-2.0, 5.0], [-8.0, 0.0]]
    """
    first, second = _grid(alphas, "alphas"), _grid(betas, "betas")
    r, D = trajectory.inner, trajectory.drop
    G = D + trajectory.excess
    if len(first) <= len(second):
        return np.stack([lower_envelope(r - alpha * D, G, second) for alpha in first])
    return np.stack([lower_envelope(r + beta * G, -D, first) for beta in second], axis=1)


def _needed(trajectory: Trajectory, gap: float) -> Array:
    """The beta that each row needs, of either sign; +-inf where beta does not matter."""
    r, D, E = trajectory.inner, trajectory.drop, trajectory.excess
    lack = gap * D - r
    free = E > 0
    if free.all():
        return lack / E
    blocked = gap * (D - trajectory.resolution("final")) - r > 4 * EPS * np.abs(r)
    needed = np.where(blocked, math.inf, -math.inf)
    return np.divide(lack, E, out=needed, where=free)


def _limits(r: Array, D: Array) -> tuple[float, float, int]:
    """The interval of u = 1 / gap that rows without beta allow (r u >= D for each), and a row that limits it."""
    if len(r) == 0:
        return 0.0, math.inf, -1
    never = ((D > 0) & (r <= 0)) | ((D == 0) & (r < 0))
    if never.any():
        return math.inf, 0.0, int(np.argmax(never))
    lows = np.divide(D, r, out=np.zeros_like(r), where=(D > 0) & (r > 0))
    highs = np.divide(D, r, out=np.full_like(r, math.inf), where=(D < 0) & (r < 0))
    return float(lows.max()), float(highs.min()), int(np.argmin(highs))


def _result(trajectory: Trajectory, gap: float, needed: float, row: int, left_out: int) -> AlphaBeta:
    beta = max(0.0, needed)
    binds = needed > 0
    return AlphaBeta(
        alpha=beta + gap,
        beta=beta,
        gap=gap,
        ratio=beta / gap,
        binding_step=int(trajectory.steps[row]) if binds else None,
        vacuous=bool((trajectory.excess > 0).all()),
        binding_row=row if binds else None,
        left_out=left_out,
    )


def _grid(values: Iterable[float], name: str) -> Array:
    grid = np.atleast_1d(as_array(values, name))
    if grid.ndim != 1 or len(grid) == 0 or not np.isfinite(grid).all():
        raise ValueError(f"{name} must be a finite vector with entries, got the shape {grid.shape}")
    return grid
