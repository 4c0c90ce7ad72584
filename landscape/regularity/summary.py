"""The function classes of a trajectory as one line of words."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from landscape.regularity.alpha_beta import alpha_beta, best_ratio
from landscape.regularity.conditions import (
    Constant,
    aiming,
    error_bound,
    polyak_lojasiewicz,
    quadratic_growth,
    quasar_convexity,
    restricted_secant,
    star_convexity,
)
from landscape.regularity.trajectory import Trajectory

_NAMED_RANGES = 3
_VACUOUS = "vacuous: f_k(x_K) > f_k^* at every step, so some pair always works and only its size says something"


def describe(trajectory: Trajectory, gap: float = 0.1) -> str:
    """The report line: what holds with which constant, and at which steps what fails.

    "alpha-beta holds with beta = 0.31 at gap 0.1 (vacuous: ...); 99 % of steps: beta = 0.12; ...; PL holds with
    mu = 2e-08; aiming fails at steps 0-40; ...". Ranges of steps are of steps in the trajectory: 0-40 are all those
    recorded from 0 to 40. Raises `ValueError` for a gap that is not positive and finite.

    Example:
        >>> from landscape.regularity import Trajectory, describe
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print("; ".join(describe(t).split("; ")[2:4]))
        PL holds with mu = 1; aiming holds with theta = 2
    """
    t = trajectory
    parts = [f"one step only (step {t.steps[0]})"] if len(t) == 1 else []
    parts += _alpha_beta_words(t, gap)
    conditions = [
        ("PL", "mu", polyak_lojasiewicz(t)),
        ("aiming", "theta", aiming(t)),
        ("quasar convexity", "theta", quasar_convexity(t)),
        ("star convexity", None, star_convexity(t)),
        ("restricted secant", "mu", restricted_secant(t)),
        ("error bound", "mu", error_bound(t)),
        ("quadratic growth", "mu", quadratic_growth(t)),
    ]
    parts += [_condition_words(t, name, symbol, found) for name, symbol, found in conditions]
    return "; ".join(parts)


def ranges(steps: NDArray[np.int64], rows: NDArray[np.int64]) -> str:
    """Some rows by their labels: "step 7", "steps 0-40", "steps 0-40, 52, 60-61 and 12 more in 5 ranges"."""
    if len(rows) == 0:
        return "no step"
    # several rows may belong to one step, as the samples do
    place = np.concatenate([[0], np.cumsum(np.diff(steps) != 0)])
    places, first = np.unique(place[rows], return_index=True)
    labels = steps[rows][first]
    breaks = np.flatnonzero((np.diff(places) > 1) | (np.diff(labels) < 0)) + 1
    runs = np.split(labels, breaks)
    named = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:_NAMED_RANGES]]
    rest = sum(len(run) for run in runs[_NAMED_RANGES:])
    many = len(runs) - _NAMED_RANGES
    more = f" and {rest} more in {many} range{'s' if many > 1 else ''}" if rest else ""
    return f"step{'s' if len(labels) > 1 else ''} {', '.join(named)}{more}"


def _alpha_beta_words(t: Trajectory, gap: float) -> list[str]:
    found = alpha_beta(t, gap)
    most = alpha_beta(t, gap, quantile=0.99)
    if math.isinf(found.beta):
        parts = [f"alpha-beta fails at gap {gap:.3g}: no beta works at step {found.binding_step}"]
    else:
        vacuous = f" ({_VACUOUS})" if found.vacuous else ""
        parts = [f"alpha-beta holds with beta = {found.beta:.3g} at gap {gap:.3g}{vacuous}"]
    if most.left_out:
        beta = "no beta works" if math.isinf(most.beta) else f"beta = {most.beta:.3g}"
        parts.append(f"99 % of steps: {beta}")
    best = best_ratio(t)
    if math.isfinite(best.ratio):
        where = f"at gap {best.gap:.3g}" if math.isfinite(best.gap) else "as the gap grows"
        parts.append(f"least beta / (alpha - beta) = {best.ratio:.3g} {where}")
    return parts


def _condition_words(t: Trajectory, name: str, symbol: str | None, found: Constant) -> str:
    if not found.holds:
        return f"{name} fails at {ranges(t.steps, found.failing_rows)}"
    if symbol is None:
        return f"{name} holds"
    if math.isinf(found.value):
        return f"{name} is bounded by no step"
    return f"{name} holds with {symbol} = {found.value:.3g}"
