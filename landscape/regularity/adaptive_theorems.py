"""What the alpha-beta-condition promises of Polyak's and AdaGrad's step sizes (arXiv 2410.12455, Theorems 2, 5 and 7).

As `theorems`: bounds on min_k E[f(x_k) - f^*] after some steps, in their parts.
"""

from __future__ import annotations

import math

import numpy as np

from landscape.regularity.theorems import Bound, ProblemConstants, count, positive


def sps_max(c: ProblemConstants, *, scale: float, cap: float, distance: float, steps: int) -> Bound:
    """Theorem 2, SPS_max: the steps min((f_i - f_i^*) / (scale ||g_i||^2), cap), scale > 1 / (2 (alpha - beta)).

    c1 distance^2 / K + 2 alpha c1 cap sigma^2 with c1 = scale / (least (2 (alpha - beta) scale - 1)) and the least
    step min(1 / (2 scale L), cap). Its neighbourhood (here: noise) does not shrink with K, and with the cap only while
    the cap is above the least step.

    Example:
        >>> from landscape.regularity import ProblemConstants, sps_max
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(sps_max(c, scale=1.0, cap=1.0, distance=1.0, steps=100))
        0.41 (0.01 transient + 0.4 noise + 0 neighbourhood)
    """
    positive(scale=scale, cap=cap)
    K = count(steps, distance=distance)
    if not 2 * c.gap * scale > 1:
        raise ValueError(f"scale must exceed 1 / (2 (alpha - beta)) = {0.5 / c.gap:.6g}, got {scale}")
    least = min(0.5 / (scale * c.smoothness), cap)
    c1 = scale / (least * (2 * c.gap * scale - 1))
    return Bound(transient=c1 * distance**2 / K, noise=2 * c.alpha * c1 * cap * c.sigma2, neighbourhood=0.0)


def dec_sps(c: ProblemConstants, *, cap: float, diameter: float, steps: int, scale: float = 1.0) -> Bound:
    """Theorem 5, DecSPS: the steps (1/c_k) min((f_i - f_i^*) / ||g_i||^2, c_(k-1) lr_(k-1)), c_k = scale sqrt(k + 1).

    2 M diameter^2 c_(K-1) / (K (alpha - beta)) + (1/K) sum_k sigma^2 / ((alpha - beta) c_k)
    + 2 beta sigma^2 / (alpha - beta), with M = max(L, 1 / (2 scale cap)).

    Args:
        c: the problem's constants.
        cap: the step before the first, lr_(-1).
        diameter: the largest distance of any iterate to the minimisers, which must be bounded beforehand.
        steps: K.
        scale: c_0 >= 1 / (alpha - beta).

    Example:
        >>> from landscape.regularity import ProblemConstants, dec_sps
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(dec_sps(c, cap=1.0, diameter=1.0, steps=100))
        0.212393 (0.133 transient + 0.0124 noise + 0.0667 neighbourhood)
    """
    positive(scale=scale, cap=cap)
    K = count(steps, diameter=diameter)
    if scale * c.gap < 1:
        raise ValueError(f"scale must be at least 1 / (alpha - beta) = {1 / c.gap:.6g}, got {scale}")
    M = max(c.smoothness, 0.5 / (scale * cap))
    inverses = float(np.sum(1.0 / np.sqrt(np.arange(1.0, K + 1)))) / scale
    return Bound(
        transient=2 * M * diameter**2 * scale / (math.sqrt(K) * c.gap),
        noise=inverses * c.sigma2 / (K * c.gap),
        neighbourhood=2 * c.beta * c.sigma2 / c.gap,
    )


def adagrad_norm_max(
    c: ProblemConstants, *, lr: float, b0: float, largest: float, smallest: float, distance: float, steps: int
) -> Bound:
    """Theorem 7, AdaGrad-norm-max: the steps lr / b_k, b_k^2 = b_(k-1)^2 + max_(j <= k) ||g_j||^2, b_(-1) = b0.

    Corrected in three places, see below: for e_K = sqrt(b0^2 + largest^2 K) and h_K = sqrt(b0^2 + smallest^2 K),

        distance^2 e_K / (lr K (alpha - beta)) + 4 alpha sigma^2 e_K (h_K - b0) / ((alpha - beta) K smallest^2).

    Printed are dist(x_k)^2 in the first term, where the proof's sum leaves dist(x_0)^2; the largest of the
    ||grad f_i(x_0)|| for `smallest`, though only the one that is drawn is known to be in every b_k; and half of the
    second term, whose sum over k of 1 / sqrt(b0^2 + smallest^2 k) is at most 2 (h_K - b0) / smallest^2. The second
    term does not vanish: it stands under `noise`.

    Args:
        c: the problem's constants.
        lr: of the solver.
        b0: at least 2 L lr / (alpha - beta).
        largest: of all ||grad f_i|| that are met.
        smallest: of the ||grad f_i(x_0)||, > 0.
        distance: of x_0 to the minimisers.
        steps: K.

    Example:
        >>> from landscape.regularity import ProblemConstants, adagrad_norm_max
        >>> c = ProblemConstants(alpha=2.0, beta=0.5, smoothness=1.0, sigma2=0.1)
        >>> print(adagrad_norm_max(c, lr=1.0, b0=4.0, largest=2.0, smallest=1.0, distance=1.0, steps=100))
        0.872444 (0.136 transient + 0.736 noise + 0 neighbourhood)
    """
    positive(lr=lr, b0=b0, largest=largest, smallest=smallest)
    K = count(steps, distance=distance)
    least = 2 * c.smoothness * lr / c.gap
    if b0 < least * (1 - 1e-12):
        raise ValueError(f"b0 must be at least 2 L lr / (alpha - beta) = {least:.6g}, got {b0}")
    e, h = math.sqrt(b0**2 + largest**2 * K), math.sqrt(b0**2 + smallest**2 * K)
    return Bound(
        transient=distance**2 * e / (lr * K * c.gap),
        noise=4 * c.alpha * c.sigma2 * e * (h - b0) / (c.gap * K * smallest**2),
        neighbourhood=0.0,
    )
