"""What the alpha-beta-condition promises of SGD and NGN (arXiv 2410.12455, Theorems 1, 3, 4 and 6).

Each function returns the bound on min_k E[f(x_k) - f^*] after some steps, in its three parts, and checks the theorem's
own conditions. All of them need every f_i L-smooth and (alpha, beta) for every f_i on the region that is visited; a
bound is only as true as these constants. On many problems the bounds are loose by orders of magnitude, and where
2 beta sigma^2 / (alpha - beta) exceeds the loss they say nothing. Polyak's and AdaGrad's steps: `adaptive_theorems`.

sigma^2 = E_i[f^* - f_i^*], 0 under interpolation; s^2 = E_i[f_i^*], for positive losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemConstants:
    """What the theorems know of a problem.

    Attributes:
        alpha, beta: of the alpha-beta-condition, alpha > beta >= 0, on the region that the run visits.
        smoothness: L, for every f_i.
        sigma2: E_i[f^* - f_i^*] >= 0.
        positivity2: E_i[f_i^*] >= 0, which only NGN asks for.

    Raises:
        ValueError: constants out of these ranges.

    Example:
        >>> from landscape.regularity import ProblemConstants
        >>> ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1).gap
        1.5
    """

    alpha: float
    beta: float
    smoothness: float
    sigma2: float
    positivity2: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > self.beta >= 0):
            raise ValueError(f"alpha > beta >= 0 must hold and be finite, got alpha {self.alpha}, beta {self.beta}")
        positive(**{"smoothness L": self.smoothness})
        not_negative(sigma2=self.sigma2, positivity2=self.positivity2)

    @property
    def gap(self) -> float:
        """alpha - beta."""
        return self.alpha - self.beta


@dataclass(frozen=True)
class Bound:
    """A bound on min_k E[f(x_k) - f^*], in units of the loss.

    Attributes:
        transient: falls with the number of steps.
        noise: falls with the step size (or with its decrease). Vanishes under interpolation; of NGN with steps above
            1 / (2 L), when f^* = 0 besides.
        neighbourhood: falls with neither; proportional to beta.
    """

    transient: float
    noise: float
    neighbourhood: float

    @property
    def total(self) -> float:
        """The bound itself."""
        return self.transient + self.noise + self.neighbourhood

    def __str__(self) -> str:
        parts = f"{self.transient:.3g} transient + {self.noise:.3g} noise + {self.neighbourhood:.3g} neighbourhood"
        return f"{self.total:.6g} ({parts})"


def one_step_decrease(c: ProblemConstants, *, lr: float, distance: float, gap_to_optimum: float) -> float:
    """The bound on E_i ||x+ - x_p||^2 after one step of SGD from x, which Theorems 1 and 4 sum up.

    ||x - x_p||^2 - lr (alpha - beta)(f(x) - f^*) + (2 lr beta + 2 L lr^2) sigma^2, for lr <= (alpha - beta) / (2 L).

    Args:
        c: the problem's constants.
        lr: the step size.
        distance: ||x - x_p||.
        gap_to_optimum: f(x) - f^* >= 0.

    Example:
        >>> from landscape.regularity import ProblemConstants, one_step_decrease
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> round(one_step_decrease(c, lr=0.1, distance=1.0, gap_to_optimum=2.0), 6)
        0.712
    """
    _sgd_step(c, lr)
    not_negative(distance=distance, gap_to_optimum=gap_to_optimum)
    return distance**2 - lr * c.gap * gap_to_optimum + (2 * lr * c.beta + 2 * c.smoothness * lr**2) * c.sigma2


def sgd_constant(c: ProblemConstants, *, lr: float, distance: float, steps: int) -> Bound:
    """Theorem 1, SGD with a constant step lr <= (alpha - beta) / (2 L); distance is that of x_0 to the minimisers.

    distance^2 / (K lr (alpha - beta)) + 2 L lr sigma^2 / (alpha - beta) + 2 beta sigma^2 / (alpha - beta).

    Example:
        >>> from landscape.regularity import ProblemConstants, sgd_constant
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(sgd_constant(c, lr=0.1, distance=1.0, steps=100))
        0.146667 (0.0667 transient + 0.0133 noise + 0.0667 neighbourhood)
    """
    _sgd_step(c, lr)
    K = count(steps, distance=distance)
    return Bound(
        transient=distance**2 / (K * lr * c.gap),
        noise=2 * c.smoothness * lr * c.sigma2 / c.gap,
        neighbourhood=2 * c.beta * c.sigma2 / c.gap,
    )


def sgd_decreasing(c: ProblemConstants, *, lr: float, distance: float, steps: int) -> Bound:
    """Theorem 4, SGD with the steps lr / sqrt(k + 1), lr <= (alpha - beta) / (2 L).

    5 distance^2 / (4 (alpha - beta) lr sqrt(K)) + 5 lr L sigma^2 log(K + 1) / ((alpha - beta) sqrt(K))
    + 2 beta sigma^2 / (alpha - beta).

    Example:
        >>> from landscape.regularity import ProblemConstants, sgd_decreasing
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(sgd_decreasing(c, lr=0.1, distance=1.0, steps=100))
        0.915384 (0.833 transient + 0.0154 noise + 0.0667 neighbourhood)
    """
    _sgd_step(c, lr)
    K = count(steps, distance=distance)
    return Bound(
        transient=5 * distance**2 / (4 * c.gap * lr * math.sqrt(K)),
        noise=5 * lr * c.smoothness * c.sigma2 * math.log(K + 1) / (c.gap * math.sqrt(K)),
        neighbourhood=2 * c.beta * c.sigma2 / c.gap,
    )


def ngn_constant(c: ProblemConstants, *, lr: float, distance: float, steps: int) -> Bound:
    """Theorem 3, NGN: the steps lr / (1 + lr ||g_i||^2 / (2 f_i)) on positive losses, any lr > 0, alpha >= beta + 1.

    distance^2 (1 + 2 lr L)^2 / (2 lr K c2) + 3 L lr alpha (1 + lr L) sigma^2 / c2
    + lr L max(2 lr L - 1, 0) s^2 / c2 + beta sigma^2 / c2, with c2 = 2 lr L (alpha - beta - 1) + alpha - beta.
    (The statement prints 2 beta in the last term, which is looser; its proof has beta.)

    Example:
        >>> from landscape.regularity import ProblemConstants, ngn_constant
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(ngn_constant(c, lr=1.0, distance=1.0, steps=100))
        0.518 (0.018 transient + 0.48 noise + 0.02 neighbourhood)
    """
    a = _ngn_step(c, lr)
    K = count(steps, distance=distance)
    c2 = 2 * a * (c.gap - 1) + c.gap
    return Bound(
        transient=distance**2 * (1 + 2 * a) ** 2 / (2 * lr * K * c2),
        noise=(3 * a * c.alpha * (1 + a) * c.sigma2 + a * max(2 * a - 1, 0.0) * c.positivity2) / c2,
        neighbourhood=c.beta * c.sigma2 / c2,
    )


def ngn_decreasing(c: ProblemConstants, *, lr: float, distance: float, steps: int) -> Bound:
    """Theorem 6, NGN with lr / sqrt(k + 1) in place of lr; alpha >= beta + 1.

    (C1 distance^2 + C2 alpha sigma^2 log(K + 1) + C4 s^2 log(K + 1)) / sqrt(K) + C3 beta sigma^2 / (alpha - beta) with,
    for a = lr L, C1 = 5 (1 + a)(1 + 2a) / (8 lr), C2 = 15 a (1 + a)(1 + 2a) / 2, C3 = (1 + a)(1 + 2a) and
    C4 = 5 (1 + a)(1 + 2a) a max(2a - 1, 0) / 2.

    Example:
        >>> from landscape.regularity import ProblemConstants, ngn_decreasing
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(ngn_decreasing(c, lr=1.0, distance=1.0, steps=100))
        4.72861 (0.375 transient + 4.15 noise + 0.2 neighbourhood)
    """
    a = _ngn_step(c, lr)
    K = count(steps, distance=distance)
    common, log = (1 + a) * (1 + 2 * a), math.log(K + 1)
    noise = 7.5 * a * c.alpha * c.sigma2 + 2.5 * a * max(2 * a - 1, 0.0) * c.positivity2
    return Bound(
        transient=0.625 * common * distance**2 / (lr * math.sqrt(K)),
        noise=common * noise * log / math.sqrt(K),
        neighbourhood=common * c.beta * c.sigma2 / c.gap,
    )


def _sgd_step(c: ProblemConstants, lr: float) -> None:
    positive(lr=lr)
    largest = c.gap / (2 * c.smoothness)
    if lr > largest * (1 + 1e-12):
        raise ValueError(f"lr {lr:.6g} is too large: the theorem needs at most (alpha - beta) / (2 L) = {largest:.6g}")


def _ngn_step(c: ProblemConstants, lr: float) -> float:
    positive(lr=lr)
    if c.gap < 1 - 1e-12:
        raise ValueError(f"NGN's theorems need alpha >= beta + 1, got the gap {c.gap:.6g}: take a pair further up")
    return lr * c.smoothness


def positive(**values: float) -> None:
    """Raise `ValueError` unless they are positive and finite."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, not {value}")


def not_negative(**values: float) -> None:
    """Raise `ValueError` unless they are finite and not negative."""
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be finite and not negative, not {value}")


def count(steps: int, **lengths: float) -> int:
    """K, after the lengths have been found not to be negative."""
    not_negative(**lengths)
    if steps < 1 or steps != int(steps):
        raise ValueError(f"steps is a whole number, at least 1, not {steps}")
    return int(steps)
