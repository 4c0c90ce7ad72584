"""The competitors of the alpha-beta-condition: the constant of each along a trajectory, and where it fails.

Each is an inequality a row with one constant c > 0: (left side)_k >= c (right side)_k. The functions return the
largest c for which all rows hold, the step that sets it, and the steps at which no positive c does. With
r_k = <g_k, x_k - x_K>, d_k = ||x_k - x_K|| and h_k = f_k(x_k) minus the reference (f_k(x_K) for "final", f_k^* for
"infimum"); x_K stands for the projection on the minimisers. Where the reference defaults differ, it is because the
published definitions do. Definitions: arXiv 2410.12455, Table 1 and appendix A; Karimi, Nutini and Schmidt 2016.

The end point is that of the path itself, so these are constants of this path and this end point, not of the loss.
Differences of losses within `Trajectory.rounding` have no sign, and no constant is read off them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landscape.regularity.trajectory import EPS, Array, Reference, Trajectory


@dataclass(frozen=True)
class Constant:
    """What a trajectory says about one condition.

    Attributes:
        value: the largest constant that every row with a positive right side allows; negative or 0 when the
            condition fails there; inf when no row bounds it.
        binding_step: label of the step that sets the value (the first of equals); None when it is inf.
        holds: value > 0 and no row is violated at it. It says so of these rows only, and is trivial for inf.
        failing_steps: labels of the steps at which no positive constant works, or that are violated at `value`
            because their right side is not positive. Empty exactly when the condition holds.
        failing_rows: their positions.
        per_step: `(T,)`, the largest constant that each row alone allows, for pictures; inf where it bounds none.
        name: of the condition.
        reference: "final" or "infimum".
    """

    value: float
    binding_step: int | None
    holds: bool
    failing_steps: NDArray[np.int64] = field(compare=False, repr=False)
    failing_rows: NDArray[np.int64] = field(compare=False, repr=False)
    per_step: Array = field(compare=False, repr=False)
    name: str = ""
    reference: Reference = "final"

    def __str__(self) -> str:
        bound = "no step binds" if self.binding_step is None else f"step {self.binding_step} binds"
        verdict = "holds" if self.holds else f"fails at {len(self.failing_steps)} steps"
        return f"{self.name} {verdict}: {self.value:.6g} ({bound})"


def polyak_lojasiewicz(t: Trajectory, delta: float = 2.0, reference: Reference = "final") -> Constant:
    """mu of ||g||^delta >= (2 mu)^(delta/2) h: min over h_k > 0 of (||g_k||^2 / h_k^(2/delta)) / 2.

    delta = 2 is the Polyak-Lojasiewicz inequality ||g||^2 >= 2 mu h, delta in [1, 2) its generalisation (arXiv
    2410.12455, appendix A, which takes h = f(x_k) - f(x_K)). Rows with h_k <= 0 satisfy it for every mu. Fails at
    stationary points (g = 0) above the reference. Raises `ValueError` for delta outside [1, 2].

    Example:
        >>> from landscape.regularity import Trajectory, polyak_lojasiewicz
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(polyak_lojasiewicz(t))
        Polyak-Lojasiewicz holds: 1 (step 0 binds)
    """
    if not 1 <= delta <= 2:
        raise ValueError(f"delta must lie in [1, 2], not {delta}; kurdyka_lojasiewicz takes larger ones")
    root = _kurdyka(t, delta, reference)
    with np.errstate(over="ignore"):
        return _constant(t, "Polyak-Lojasiewicz", reference, 0.5 * np.square(root))


def kurdyka_lojasiewicz(t: Trajectory, delta: float, reference: Reference = "final") -> Constant:
    """c of ||g|| >= c h^(1/delta): min over h_k > 0 of ||g_k|| / h_k^(1/delta).

    The Kurdyka-Lojasiewicz inequality ||g|| >= 1 / phi'(h) with phi(s) = s^(1 - 1/delta) / (c (1 - 1/delta)), that
    is with the Lojasiewicz exponent 1/delta; c = sqrt(2 mu) of `polyak_lojasiewicz` at the same delta. For delta = 1
    it is ||g|| >= c h, where phi is a logarithm. Raises `ValueError` for delta below 1 or not finite.

    Example:
        >>> from landscape.regularity import Trajectory, kurdyka_lojasiewicz
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> round(kurdyka_lojasiewicz(t, 2.0).value, 6)
        1.414214
    """
    if not (delta >= 1 and math.isfinite(delta)):
        raise ValueError(f"delta must be finite and at least 1, not {delta}")
    return _constant(t, "Kurdyka-Lojasiewicz", reference, _kurdyka(t, delta, reference))


def aiming(t: Trajectory, reference: Reference = "infimum") -> Constant:
    """theta of r >= theta h: min over h_k > 0 of r_k / h_k. The aiming condition is <g, x - x_p> >= theta f(x).

    The published condition (Liu et al. 2023, for losses with infimum 0) has f itself on the right, hence the default
    reference; with "final" it is quasar convexity. Fails where the negative gradient does not point to x_K. x_K itself
    is left out: there theta f <= 0 holds under interpolation only.

    Example:
        >>> from landscape.regularity import Trajectory, aiming
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(aiming(t))
        aiming holds: 2 (step 0 binds)
    """
    return _along(t, "aiming", reference)


def quasar_convexity(t: Trajectory, reference: Reference = "final") -> Constant:
    """theta of <g, x - x_p> >= theta (f(x) - f(x_p)): min over h_k > 0 of r_k / h_k.

    A row with h_k <= 0 bounds theta from below, so it sets no value, but the condition fails when it is violated at
    the value. (A plain minimum over all rows would return nonsense: r = (.5, .2) and h = (1, -.1) have theta = .5.)
    Convex losses have theta >= 1 around a minimiser.

    Example:
        >>> from landscape.regularity import Trajectory, quasar_convexity
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(quasar_convexity(t))
        quasar convexity holds: 2 (step 0 binds)
    """
    return _along(t, "quasar convexity", reference)


def star_convexity(t: Trajectory, reference: Reference = "final") -> Constant:
    """The margin min_k (r_k - h_k) of f(x_p) >= f(x) + <g, x_p - x>, which is quasar convexity with theta = 1.

    There is no constant here: `value` is the margin in units of the loss (0 at x_K itself), and the condition holds
    when it is not negative beyond rounding.

    Example:
        >>> from landscape.regularity import Trajectory, star_convexity
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(star_convexity(t))
        star convexity holds: 0.5 (step 1 binds)
    """
    h, noise = t.above(reference), t.resolution(reference)
    margin = np.where(t.at_end, 0.0, t.inner - h)
    failing = margin < -(noise + 8 * EPS * np.abs(t.inner))
    return _constant(t, "star convexity", reference, margin, failing)


def restricted_secant(t: Trajectory, reference: Reference = "final") -> Constant:
    """mu of <g, x - x_p> >= mu ||x - x_p||^2: min over d_k > 0 of r_k / d_k^2. No loss enters: no reference matters.

    Example:
        >>> from landscape.regularity import Trajectory, restricted_secant
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(restricted_secant(t))
        restricted secant holds: 1 (step 0 binds)
    """
    t.above(reference)
    return _constant(t, "restricted secant", reference, _divide(_divide(t.inner, t.distance), t.distance))


def error_bound(t: Trajectory, reference: Reference = "final") -> Constant:
    """mu of ||g|| >= mu ||x - x_p||: min over d_k > 0 of ||g_k|| / d_k. No loss enters: no reference matters.

    Example:
        >>> from landscape.regularity import Trajectory, error_bound
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(error_bound(t))
        error bound holds: 1 (step 0 binds)
    """
    t.above(reference)
    return _constant(t, "error bound", reference, _divide(t.grad_norm, t.distance))


def quadratic_growth(t: Trajectory, reference: Reference = "final") -> Constant:
    """mu of f(x) - f^* >= (mu/2) ||x - x_p||^2: min over d_k > 0 of 2 h_k / d_k^2.

    Fails where the loss is not above the reference away from x_K. A row whose h_k is rounding counts only when it
    contradicts the constant of the others beyond rounding.

    Example:
        >>> from landscape.regularity import Trajectory, quadratic_growth
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> print(quadratic_growth(t))
        quadratic growth holds: 1 (step 0 binds)
    """
    h, noise = t.above(reference), t.resolution(reference)
    half = _divide(_divide(h, t.distance), t.distance)
    unsure = np.abs(h) <= noise
    least = float(np.min(half[~unsure], initial=math.inf))
    with np.errstate(invalid="ignore", over="ignore"):
        half[unsure & ~(least * np.square(t.distance) > h + noise)] = math.inf
    return _constant(t, "quadratic growth", reference, 2.0 * half)


def angles(t: Trajectory) -> Array:
    """The cosine between g_k and x_k - x_K, `(T,)` in [-1, 1]: positive where -g_k points towards the end point.

    The quotient of the restricted secant and the error bound constants. nan at x_K itself and where g_k = 0.

    Example:
        >>> from landscape.regularity import Trajectory, angles
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], 0.0, [2.0, 1.0], [2.0, 1.0])  # x^2 / 2 at 2 and 1
        >>> angles(t).tolist()
        [1.0, 1.0]
    """
    cosine = np.full(len(t), math.nan)
    known = (t.grad_norm > 0) & (t.distance > 0)
    np.divide(t.inner, t.grad_norm, out=cosine, where=known)
    np.divide(cosine, t.distance, out=cosine, where=known)
    return np.clip(cosine, -1.0, 1.0)


def _kurdyka(t: Trajectory, delta: float, reference: Reference) -> Array:
    h = t.above(reference)
    rows = h > t.resolution(reference)
    root = np.power(h, 1.0 / delta, out=np.zeros(len(t)), where=rows)
    return _divide(t.grad_norm, root)


def _along(t: Trajectory, name: str, reference: Reference) -> Constant:
    """The largest theta with r_k >= theta h_k, from rows with h_k > 0; the others are held against it."""
    r, h, noise = t.inner, t.above(reference), t.resolution(reference)
    inside = ~t.at_end
    above = inside & (h > noise)
    values = np.full(len(t), math.inf)
    with np.errstate(over="ignore"):
        np.divide(r, h, out=values, where=above)
    theta = float(values.min())
    if math.isinf(theta):
        failing = inside & (np.abs(h) <= noise) & (r < 0)
    else:
        failing = inside & np.where(above, values <= 0, r < max(theta, 0.0) * (h - noise))
    return _constant(t, name, reference, values, failing)


def _divide(top: Array, bottom: Array) -> Array:
    """top / bottom, inf where bottom is 0: rows that bound no constant."""
    with np.errstate(over="ignore"):
        return np.divide(top, bottom, out=np.full(len(top), math.inf), where=(bottom > 0) & np.isfinite(top))


def _constant(
    t: Trajectory, name: str, reference: Reference, values: Array, failing: NDArray[np.bool_] | None = None
) -> Constant:
    row = int(np.argmin(values))
    value = float(values[row])
    binding_step = None if math.isinf(value) else int(t.steps[row])
    rows = np.flatnonzero(values <= 0 if failing is None else failing)
    return Constant(value, binding_step, len(rows) == 0, t.steps[rows], rows, values, name, reference)
