"""Small problems whose function class is known: those of arXiv 2410.12455, and one on which its theorems speak.

A finite sum f = mean_i f_i of smooth functions of a few variables, with values, gradients, minimisers and infima in
closed form (or to the last digit). The constants of such a problem belong to the region on which they are taken:
Example 6 at gap 1 needs beta 19.06 on [-6, 8]^2, set by a corner, and 15.50 on [-2, 3]^2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import brentq

from landscape.regularity.trajectory import Array, Trajectory

# The f_i and their gradients at points (m, d): (m,) and (m, d).
Term = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class FiniteSum:
    """f = mean_i f_i on R^d.

    Attributes:
        name: what it is called.
        dimension: d.
        terms: each maps points `(m, d)` to values `(m,)` and gradients `(m, d)`.
        infimum: f_i^*, `(n,)`.
        minimum: f^*; nan where it is not known.
        project: the minimiser of f nearest to each point, `(m, d)` to `(m, d)`; None where it is not known.
        pairs: (alpha, beta) that the source states, for all of R^d or for the square [-6, 8]^2.
        smoothness: L, a bound for every f_i; nan where it is not known.

    Example:
        >>> import numpy as np
        >>> from landscape.regularity.examples import FiniteSum
        >>> f = FiniteSum("x^2 / 2", 1, (lambda x: ((x**2).sum(axis=1) / 2, x),), infimum=np.zeros(1))
        >>> f.trajectory([[2.0], [1.0]], end=[0.0]).loss.tolist()
        [2.0, 0.5]
    """

    name: str
    dimension: int
    terms: tuple[Term, ...]
    infimum: Array
    minimum: float = float("nan")
    project: Callable[[Array], Array] | None = None
    pairs: tuple[tuple[float, float], ...] = ()
    smoothness: float = float("nan")

    @property
    def sigma2(self) -> float:
        """sigma_int^2 = mean_i (f^* - f_i^*)."""
        return self.minimum - float(self.infimum.mean())

    def values(self, points: Any) -> Array:
        """f_i at each point: `(n, m)`."""
        return np.stack([term(self._points(points))[0] for term in self.terms])

    def gradients(self, points: Any) -> Array:
        """grad f_i at each point: `(n, m, d)`."""
        return np.stack([term(self._points(points))[1] for term in self.terms])

    def trajectory(self, points: Any, end: Any = None) -> Trajectory:
        """The rows of all f_i at all points `(m, d)`, function by function; the label is the point's position.

        Each point is held against its own nearest minimiser, as Definition 1 asks, or against the one point `end`,
        `(d,)`, as for a run. Raises `ValueError` when neither is known.
        """
        x = self._points(points)
        if end is not None:
            ends = np.broadcast_to(np.asarray(end, dtype=np.float64), x.shape)
        elif self.project is not None:
            ends = self.project(x)
        else:
            raise ValueError(f"the minimisers of {self.name} are not known: pass end=, the last point of the run")
        g, count = self.gradients(x), len(self.terms)
        return Trajectory(
            inner=(g * (x - ends)).sum(axis=-1).ravel(),
            loss=self.values(x).ravel(),
            final_loss=self.values(ends).ravel(),
            infimum=np.repeat(self.infimum, len(x)),
            grad_norm=np.linalg.norm(g, axis=-1).ravel(),
            distance=np.tile(np.linalg.norm(x - ends, axis=-1), count),
            steps=np.tile(np.arange(len(x)), count),
        )

    def _points(self, points: Any) -> Array:
        x = np.asarray(points, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ValueError(f"points must have the shape (m, {self.dimension}), not {x.shape}")
        return x


def grid(low: float, high: float, count: int, dimension: int = 2) -> Array:
    """The points of a square grid, `(count ** dimension, dimension)`.

    Example:
        >>> from landscape.regularity.examples import grid
        >>> grid(-1.0, 1.0, 2).tolist()
        [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    axis = np.linspace(low, high, count)
    return np.array(list(itertools.product(axis, repeat=dimension)))


def unbounded_minimisers() -> FiniteSum:
    """Example 1: u^2 / (1 + u^2) for u = x + y and x + y + 1, minimal on the line y = -x - 1/2 with f_i = 1/5 there.

    Holds for alpha >= 5/2, beta >= 4 alpha / 5 everywhere.

    Example:
        >>> from landscape.regularity.examples import unbounded_minimisers
        >>> unbounded_minimisers().values([[0.0, -0.5]]).round(6).tolist()
        [[0.2], [0.2]]
    """

    def project(z: Array) -> Array:
        return z - 0.5 * (z.sum(axis=1, keepdims=True) + 0.5)

    terms = (partial(_ridge, shift=0.0), partial(_ridge, shift=1.0))
    return FiniteSum("example 1", 2, terms, np.zeros(2), 0.2, project, pairs=((2.5, 2.0),), smoothness=4.0)


def saddle() -> FiniteSum:
    """Example 2: 1 - exp(-|z|^2) and 1 - exp(-|z - (2, 2)|^2), with two minimisers and a saddle between them.

    Holds for alpha >= 8 / c, beta = alpha - 8 with c = 9.09e-7 the smallest f_i - f_i^* at a minimiser (the paper
    prints a value of alpha that is larger than it needs to be).

    Example:
        >>> import numpy as np
        >>> from landscape.regularity.examples import saddle
        >>> saddle().project(np.array([[0.0, 0.0], [2.0, 2.0]])).round(4).tolist()
        [[0.0007, 0.0007], [1.9993, 1.9993]]
    """
    terms = (partial(_bump, centre=0.0), partial(_bump, centre=2.0))
    t = _root(terms, 0.0, 0.5)
    least = float(terms[0](np.full((1, 2), t))[0][0])
    return _symmetric(
        "example 2", terms, (t, 2.0 - t), np.zeros(2), pairs=((8 / least, 8 / least - 8),), smoothness=2.0
    )


def local_minimum() -> FiniteSum:
    """Example 3: (1 + |z|^2) / (4 + |z|^2) and q / (1 + q), q = |z - (2.5, 2.5)|^2: a local minimum near the origin.

    Holds for alpha >= 1512.4586, beta = alpha - 1. (The paper prints another denominator of the second function, for
    which none of its numbers come out.)

    Example:
        >>> from landscape.regularity.examples import local_minimum
        >>> round(local_minimum().minimum, 4)
        0.4083
    """
    terms: tuple[Term, ...] = (_well, partial(_saturating, centre=2.5))
    t = _root(terms, 2.3, 2.5)
    pairs = ((1512.4586, 1511.4586),)
    return _symmetric("example 3", terms, (t,), np.array([0.25, 0.0]), pairs=pairs, smoothness=2.0)


def two_minima() -> FiniteSum:
    """Example 6 (appendix B): q / (1 + q) for q = |z|^2 and |z - (1, 1)|^2, with two global minimisers.

    Holds for alpha >= 41.369325, beta = alpha - 1, and for no alpha with beta = 0.

    Example:
        >>> from landscape.regularity.examples import two_minima
        >>> round(two_minima().sigma2, 4)
        0.317
    """
    terms = (partial(_saturating, centre=0.0), partial(_saturating, centre=1.0))
    t = _root(terms, 0.0, 0.4)
    return _symmetric("example 6", terms, (t, 1.0 - t), np.zeros(2), pairs=((41.369325, 40.369325),), smoothness=2.0)


def two_functions() -> FiniteSum:
    """(x - 1)^2/2 + (1 - cos 2x)/2 and (x + 1)^2/2 + (1 - cos 2x)/2 on the line: x* = 0, f^* = 1/2, L = 3.

    Not convex, and far enough from interpolation that the theorems' bounds are below the loss: beta is 0.163338 at
    gap 1/2 and 2.164732 at gap 1, on the whole line.

    Example:
        >>> from landscape.regularity.examples import two_functions
        >>> two_functions().gradients([[0.0]]).ravel().tolist()
        [-1.0, 1.0]
    """
    terms = (partial(_tilted, centre=1.0), partial(_tilted, centre=-1.0))
    x = float(brentq(lambda x: terms[0](np.array([[x]]))[1][0, 0], 0.0, 1.0, xtol=1e-15))
    lowest = float(terms[0](np.array([[x]]))[0][0])
    return FiniteSum("two functions", 1, terms, np.full(2, lowest), 0.5, np.zeros_like, smoothness=3.0)


def half_space(
    *,
    samples: int = 20,
    means: Sequence[Sequence[float]] = ((1.0, 1.0), (-1.0, -1.0)),
    variance: float = 2.0,
    weight: float = 1e-5,
    seed: int = 0,
) -> FiniteSum:
    """Half-space learning: f_i(x) = sigmoid(-b_i x.a_i) + (weight / 2) |x|^2 on two Gaussian classes.

    The minimisers are not known: `trajectory` needs the end of a run. The infima are found on the ray along b_i a_i,
    on which each f_i has its minimiser.

    Args:
        samples: of each class.
        means: of the classes labelled +1 and -1.
        variance: of each coordinate.
        weight: of the regulariser, > 0.
        seed: of the samples.

    Example:
        >>> from landscape.regularity.examples import half_space
        >>> half_space(samples=2).values([[0.0, 0.0]]).ravel().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    rng = np.random.default_rng(seed)
    centres = np.asarray(means, dtype=np.float64)
    a = np.concatenate([c + np.sqrt(variance) * rng.standard_normal((samples, len(c))) for c in centres])
    signed = a * np.repeat([1.0, -1.0], samples)[:, None]
    infimum = np.array([_ray_infimum(float(np.linalg.norm(row)), weight) for row in signed])
    terms = tuple(partial(_sigmoid, direction=row, weight=weight) for row in signed)
    # |sigmoid''| <= 1 / (6 sqrt(3))
    smoothness = float((signed**2).sum(axis=1).max()) / (6 * np.sqrt(3)) + weight
    return FiniteSum("half-space", a.shape[1], terms, infimum, smoothness=smoothness)


# -- the functions ---------------------------------------------------------------------------------------------------


def _ridge(z: Array, shift: float) -> tuple[Array, Array]:
    u = z.sum(axis=1) + shift
    return u**2 / (1 + u**2), np.broadcast_to((2 * u / (1 + u**2) ** 2)[:, None], z.shape)


def _bump(z: Array, centre: float) -> tuple[Array, Array]:
    e = np.exp(-((z - centre) ** 2).sum(axis=1))
    return -np.expm1(-((z - centre) ** 2).sum(axis=1)), 2 * e[:, None] * (z - centre)


def _saturating(z: Array, centre: float) -> tuple[Array, Array]:
    q = ((z - centre) ** 2).sum(axis=1)
    return q / (1 + q), (2 / (1 + q) ** 2)[:, None] * (z - centre)


def _well(z: Array) -> tuple[Array, Array]:
    q = (z**2).sum(axis=1)
    return (1 + q) / (4 + q), (6 / (4 + q) ** 2)[:, None] * z


def _tilted(z: Array, centre: float) -> tuple[Array, Array]:
    x = z[:, 0]
    return 0.5 * (x - centre) ** 2 + np.sin(x) ** 2, (x - centre + np.sin(2 * x))[:, None]


def _sigmoid(z: Array, direction: Array, weight: float) -> tuple[Array, Array]:
    s = 0.5 * (1 - np.tanh(0.5 * (z @ direction)))
    return s + 0.5 * weight * (z**2).sum(axis=1), -(s * (1 - s))[:, None] * direction + weight * z


def _ray_infimum(length: float, weight: float) -> float:
    """min over t of sigmoid(-t length) + (weight / 2) t^2."""

    def sigmoid(t: float) -> float:
        return 0.5 * (1 - float(np.tanh(0.5 * t * length)))

    def slope(t: float) -> float:
        return weight * t - length * sigmoid(t) * (1 - sigmoid(t))

    # At t = 1 / sqrt(weight) the regulariser alone reaches the value 1/2 of t = 0, so the minimiser lies before.
    t = float(brentq(slope, 0.0, 1.0 / np.sqrt(weight), xtol=1e-14))
    return sigmoid(t) + 0.5 * weight * t**2


def _root(terms: tuple[Term, ...], low: float, high: float) -> float:
    """Where the derivative of f along the diagonal vanishes, between two signs."""
    return float(
        brentq(lambda t: sum(float(term(np.full((1, 2), t))[1].sum()) for term in terms), low, high, xtol=1e-15)
    )


def _symmetric(
    name: str, terms: tuple[Term, ...], diagonal: tuple[float, ...], infimum: Array, **known: Any
) -> FiniteSum:
    """A sum whose minimisers are these points (t, t)."""
    minimisers = np.array([[t, t] for t in diagonal])

    def project(z: Array) -> Array:
        return minimisers[((z[:, None] - minimisers) ** 2).sum(axis=-1).argmin(axis=1)]

    minimum = float(np.mean([term(minimisers[:1])[0][0] for term in terms]))
    return FiniteSum(name, 2, terms, infimum, minimum, project, **known)
