"""Convex finite sums: what NGN-M's theorems promise there beside what it does, and step sizes of any size.

z_{k+1} = z_k - gamma_k g_k, x_{k+1} = (lam x_k + z_{k+1}) / (1 + lam) is NGN-M with momentum lam / (1 + lam) (arXiv
2508.15071). Of its Theorems 4.3, D.2 and D.5 the constants are derived again from the step

    E |z_{k+1} - x*|^2 <= E |z_k - x*|^2 - 2 rho_k E gap_k + 2 c_k lam_k E gap_{k-1} + noise_k,    rho_k = c_k / q_k,
    noise_k = (6 c_k^2 L / (1 + 2 c_k L) + 2 c_k lam_k) sigma^2 + 2 c_k^2 L (2 c_k L - 1)_+ / q_k s^2,

q = (1 + c L)(1 + 2 c L), sigma^2 = E[f* - f_S*], s^2 = E[f_S*], gap_k = f(x_k) - f*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscape.regularity import Bound

Array = NDArray[np.float64]
OFFSET = 0.1  # of every f_i: their least value, so that s^2 is no zero


@dataclass(frozen=True)
class Sum:
    """f = mean_i f_i, f_i(x) = (a_i x - b_i)^2 / 2 ("squares") or log(1 + exp(-b_i a_i x)) ("logistic"), + `offset`.

    Attributes:
        rows, targets: a_i `(n, d)` and b_i `(n,)`, which are -1 or 1 for "logistic".
    """

    kind: Literal["squares", "logistic"]
    rows: Array
    targets: Array
    offset: float = 0.0

    def terms(self, x: Array, chosen: NDArray[np.int64]) -> tuple[Array, Array]:
        """f_i `(m,)` and their gradients `(m, d)` at points `(m, d)`, of one i for each point."""
        a, b = self.rows[chosen], self.targets[chosen]
        u = (a * x).sum(axis=1)
        if self.kind == "squares":
            return (u - b) ** 2 / 2 + self.offset, (u - b)[:, None] * a
        return np.logaddexp(0.0, -b * u) + self.offset, (-b / (1 + np.exp(np.minimum(b * u, 700.0))))[:, None] * a

    def value(self, x: Array) -> Array:
        """f `(m,)` at points `(m, d)`."""
        u = x @ self.rows.T
        each = (u - self.targets) ** 2 / 2 if self.kind == "squares" else np.logaddexp(0.0, -self.targets * u)
        return each.mean(axis=1) + self.offset

    @cached_property
    def smoothness(self) -> float:
        """L of every f_i."""
        return float((self.rows**2).sum(axis=1).max()) * (1.0 if self.kind == "squares" else 0.25)

    @cached_property
    def minimiser(self) -> Array:
        """x* `(d,)`; of "logistic" by Newton's method from 0."""
        if self.kind == "squares":
            return np.asarray(np.linalg.lstsq(self.rows, self.targets, rcond=None)[0], dtype=np.float64)
        x = np.zeros(self.rows.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-self.targets * (self.rows @ x)))
            gradient = -((1 - p) * self.targets) @ self.rows
            x = x - np.linalg.solve((self.rows.T * (p * (1 - p))) @ self.rows, gradient)
        return np.asarray(x, dtype=np.float64)

    @cached_property
    def minimum(self) -> float:
        """f*."""
        return float(self.value(self.minimiser[None])[0])

    @property
    def sigma2(self) -> float:
        """E[f* - f_S*]; the least value of each f_i is `offset`."""
        return self.minimum - self.offset


def least_squares(*, noise: float = 1.0, offset: float = OFFSET) -> Sum:
    """50 equations in 5 unknowns with normal entries; without `noise` they have a solution."""
    rng = np.random.default_rng(0)
    rows, x = rng.standard_normal((50, 5)), rng.standard_normal(5)
    return Sum("squares", rows, rows @ x + noise * rng.standard_normal(50), offset)


def logistic() -> Sum:
    """50 samples in 5 dimensions whose labels no plane separates."""
    rng = np.random.default_rng(0)
    rows, x = rng.standard_normal((50, 5)), rng.standard_normal(5)
    return Sum("logistic", rows, np.where(rows @ x + 2 * rng.standard_normal(50) > 0, 1.0, -1.0), OFFSET)


# -- the theorems ----------------------------------------------------------------------------------------------------


def growth(cL: Any) -> Any:
    """q = (1 + cL)(1 + 2cL)."""
    return (1 + cL) * (1 + 2 * cL)


def largest_lam(cL: Any) -> Any:
    """The momentum that Theorems 4.3 and D.5 allow: min{cL, 1 / (2q)}."""
    return np.minimum(cL, 0.5 / growth(cL))


def constant(problem: Sum, c: float, distance2: float, steps: int) -> Bound:
    """Theorem 4.3, any c > 0, lam <= `largest_lam`: on the mean over k < K of E gap_k."""
    a = c * problem.smoothness
    noise = (6 * a * (1 + a) + 2 * a * growth(a)) * problem.sigma2 + 2 * a * max(2 * a - 1, 0.0) * problem.offset
    return Bound(distance2 * growth(a) / (c * steps), noise, 0.0)


def interpolated(problem: Sum, c: float, lam: float, distance2: float, gap: float, steps: int) -> Bound:
    """Theorem D.2, where all f_i are least at x*, c <= min{1 / (4 lam L), 1 / (2L)}, lam >= 9 allowed; `gap` at x_0."""
    a = c * problem.smoothness
    falls = steps * (1 / (1 + 2 * a) - lam * a)
    return Bound(((1 + a) * distance2 / (2 * c) + lam * gap) / falls, 0.0, 0.0)


def decreasing(problem: Sum, c: float, distance2: float, steps: int) -> Bound:
    """Theorem D.5, c_k = c / sqrt(k + 1), c L <= 0.7, lam_k <= `largest_lam`: on the mean of E gap_k by rho_k."""
    L, log = problem.smoothness, math.log(steps + 1)
    scale = 5 * growth(c * L) / (4 * c * math.sqrt(steps))
    noise = 16 * L * c**2 * log * problem.sigma2 + 4 * L * c**2 * max(2 * c * L - 1, 0.0) * log * problem.offset
    return Bound(scale * distance2, scale * noise, 0.0)


def descend(problem: Sum, cs: Array, lams: Array, runs: int, seed: int) -> Array:
    """f(x_k) - f*, mean over the runs, before each of the steps c_k, lam_k `(K,)`, from 0."""
    rng = np.random.default_rng(seed)
    n, d = problem.rows.shape
    x = np.zeros((runs, d))
    z, gaps = x.copy(), np.empty(len(cs))
    for k, c in enumerate(cs):
        gaps[k] = problem.value(x).mean() - problem.minimum
        z = z - ngn_step(problem, x, rng.integers(n, size=runs), float(c))
        lam = float(lams[min(k + 1, len(lams) - 1)])
        x = (lam * x + z) / (1 + lam)
    return gaps


def ngn_step(problem: Sum, x: Array, chosen: NDArray[np.int64], c: float) -> Array:
    """gamma g `(m, d)` of one f_i for each point `(m, d)`."""
    f, g = problem.terms(x, chosen)
    square = (g**2).sum(axis=1)
    down = 2 * f + c * square
    return np.where(down > 0, 2 * c * f / np.where(down > 0, down, 1.0), c)[:, None] * g
