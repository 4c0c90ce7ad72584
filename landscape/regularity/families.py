"""Families of alpha-beta problems of any size (arXiv 2410.12455): Remark 1, and Examples 4 and 5.

Both families of Remark 1 satisfy the condition on all of R^d with beta = alpha - 1 and, for q = q_i at a minimiser,

    alpha = max over i and the minimisers of max{1 + q, (1 + q) / q},

which is exact where the maximum is (1 + q) / q: far away no smaller beta works at the gap 1. (The paper proves that
some pair works.) Examples 4 and 5 satisfy it on bounded sets. Their published constants are taken where they hold, and
else what the published proof gives; each function says which.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, brentq, minimize

from landscape.regularity.examples import FiniteSum, Term
from landscape.regularity.trajectory import Array


def ridges(shifts: Any, dimension: int = 2) -> FiniteSum:
    """Remark 1, first family: s^2 / (1 + s^2) with s = sum_j x_j + shift_i, minimal on a hyperplane.

    The pair holds on R^d, see the module.

    Example:
        >>> from landscape.regularity.families import ridges
        >>> ridges([0.0, 1.0]).pairs  # Example 1: f_i = 1/5 at the minimisers
        ((5.0, 4.0),)
    """
    a = np.asarray(shifts, dtype=np.float64)

    def value(u: float) -> float:
        return float((1 - 1 / (1 + (u + a) ** 2)).mean())

    def slope(u: float) -> float:
        return float(((u + a) / (1 + (u + a) ** 2) ** 2).sum())

    tried = np.linspace(-a.max() - 1, 1 - a.min(), 401)
    near, width = float(tried[np.argmin([value(u) for u in tried])]), float(tried[1] - tried[0])
    u = float(brentq(slope, near - width, near + width, xtol=1e-15))

    def project(z: Array) -> Array:
        return z - (z.sum(axis=1, keepdims=True) - u) / dimension

    terms = tuple(partial(_quotient, _ridge, shift=shift) for shift in a)
    return _saturated("remark 1, ridges", dimension, terms, (u + a) ** 2, value(u), project)


def saturations(centres: Any) -> FiniteSum:
    """Remark 1, second family: q / (1 + q) with q = |x - centre_i|^2, for `(n, d)` centres that have one minimiser.

    The pair holds on R^d, see the module.

    Example:
        >>> from landscape.regularity.families import saturations
        >>> [round(number, 3) for number in saturations([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).pairs[0]]
        [9.57, 8.57]
    """
    b = np.asarray(centres, dtype=np.float64)
    terms = tuple(partial(_quotient, _square, centre=centre) for centre in b)
    best = _lowest(partial(_mean, terms), (*b, b.mean(axis=0)), gtol=1e-12)
    q = ((best.x - b) ** 2).sum(axis=1)

    def project(z: Array) -> Array:
        return np.broadcast_to(best.x, z.shape)

    return _saturated("remark 1, saturations", b.shape[1], terms, q, float(best.fun), project)


def factorization(left: Any, right: Any, noise: Any, *, bound: float) -> FiniteSum:
    """Example 4: f_ij(W, S) = (X_ij - <w_i, s_j>)^2 / 2 for X = left^T right + noise, at points (W, S) laid flat.

    Where X^T and X map `left` and `right` as their own product does (noise right^T = 0, left noise = 0) and the noise
    is below the product's singular values, (left, right) is a minimiser. It is so up to (A^T W, A^-1 S); the nearest
    one of this orbit is found by minimisation over A. The published pair, alpha = 2 C / c with c = min noise_ij^2 and
    beta = alpha - 1, needs C, the largest (<s_j, w_i^*> - X_ij)^2 / 2 + (<w_i, s_j^*> - X_ij)^2 / 2 on the region:
    here from Cauchy and Schwarz with columns of W, S and their projections no longer than `bound`.

    Args:
        left: W^*, `(k, n)`.
        right: S^*, `(k, m)`.
        noise: `(n, m)`, no entry 0.
        bound: on the norm of each column, of the points and of their projections.

    Example:
        >>> import numpy as np
        >>> from landscape.regularity.families import factorization
        >>> f = factorization([[1.0, -1.0]], [[1.0, -1.0]], [[0.5, 0.5], [0.5, 0.5]], bound=2.0)
        >>> f.pairs
        ((242.0, 241.0),)
        >>> f.project(np.array([[2.0, -2.0, 0.5, -0.5]])).round(4).tolist()
        [[2.0, -2.0, 0.5, -0.5]]
    """
    W, S, E = (np.asarray(part, dtype=np.float64) for part in (left, right, noise))
    (k, n), m = W.shape, S.shape[1]
    X = W.T @ S + E
    terms = tuple(partial(_entry, target=X[i, j], row=i, column=j, shape=(k, n, m)) for i in range(n) for j in range(m))
    alpha = 2 * float(((bound**2 + np.abs(X)) ** 2).max()) / float((E**2).min())

    def project(z: Array) -> Array:
        return np.array([_on_orbit(point, W, S) for point in z])

    size = k * (n + m)
    known: dict[str, Any] = {"minimum": float((E**2).mean()) / 2, "project": project}
    return FiniteSum("example 4", size, terms, np.zeros(n * m), **known, pairs=((alpha, alpha - 1),))


def two_layer(x: Any, y: Any, *, width: int, decay: float, first: float, second: float, starts: int = 60) -> FiniteSum:
    """Example 5: log(1 + exp(-y_i <v, relu(W x_i)>)) + decay (|v|^2 + |W|^2), at points (W, v) laid flat.

    Minimisers are sought by BFGS from random starts, and the neurons of the lowest one exchanged: `project` takes the
    nearest of its width! copies. The paper's alpha, with c the smallest min_S f_i, needs c > f_i^* for every i, which
    often fails; the proof gives alpha = 1 + max_i 2 log(1 + exp(R r |x_i|)) / (min_S f_i - f_i^*), beta = alpha - 1,
    taken here.

    Args:
        x, y: samples `(n, d)` and their labels +-1.
        width: neurons.
        decay: of both layers, > 0.
        first, second: R and r, bounds on |W| and |v|.
        starts: of the search for a minimiser.

    Raises:
        ValueError: some f_i is minimal at the minimiser found.

    Example:
        >>> from landscape.regularity.families import two_layer
        >>> f = two_layer([[1.0], [2.0], [-1.0]], [1, 1, -1], width=1, decay=0.05, first=2.0, second=2.0, starts=4)
        >>> bool(f.minimum > f.infimum.mean())
        True
    """
    inputs, labels = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    shape = width, inputs.shape[1]
    samples = list(zip(inputs, labels, strict=True))
    terms = tuple(partial(_relu, x=row, y=label, shape=shape, decay=decay) for row, label in samples)
    size = width * (shape[1] + 1)
    rng = np.random.default_rng(0)
    best = _lowest(partial(_mean, terms), (rng.standard_normal(size) for _ in range(starts)), gtol=1e-10)
    W, v = best.x[: -shape[0]].reshape(shape), best.x[-shape[0] :]
    orders = [list(order) for order in itertools.permutations(range(width))]
    copies = np.array([np.concatenate([W[order].ravel(), v[order]]) for order in orders])

    def project(z: Array) -> Array:
        return copies[((z[:, None] - copies) ** 2).sum(axis=-1).argmin(axis=1)]

    lengths = np.linalg.norm(inputs, axis=1)
    a = np.minimum(0.5, 2 * decay / lengths)
    infimum = -a * np.log(a) - (1 - a) * np.log1p(-a)
    above = np.array([float(term(best.x[None])[0][0]) for term in terms]) - infimum
    if above.min() <= 0:
        raise ValueError("a function of the sum is minimal at the minimiser of the sum: Example 5 excludes that")
    alpha = 1 + float((2 * np.logaddexp(0, first * second * lengths) / above).max())
    known: dict[str, Any] = {"minimum": float(best.fun), "project": project}
    return FiniteSum("example 5", size, terms, infimum, **known, pairs=((alpha, alpha - 1),))


def _mean(terms: Sequence[Term], x: Array) -> tuple[float, Array]:
    """Value and gradient of the mean at one point."""
    found = [term(x[None]) for term in terms]
    return float(np.mean([f[0] for f, _ in found])), np.mean([g[0] for _, g in found], axis=0)


def _lowest(value: Callable[[Array], tuple[float, Array]], starts: Iterable[Array], gtol: float) -> OptimizeResult:
    """The lowest of the minima that BFGS finds from these starts."""
    runs = [minimize(value, start, jac=True, options={"gtol": gtol}) for start in starts]
    return min(runs, key=lambda run: float(run.fun))


# -- the functions ---------------------------------------------------------------------------------------------------


def _saturated(name: str, dimension: int, terms: tuple[Term, ...], q: Array, minimum: float, project: Any) -> FiniteSum:
    alpha = float(np.maximum(1 + q, (1 + q) / q).max())
    return FiniteSum(name, dimension, terms, np.zeros(len(terms)), minimum, project, pairs=((alpha, alpha - 1),))


def _quotient(inner: Any, z: Array, **settings: Any) -> tuple[Array, Array]:
    """q / (1 + q) of a square q."""
    q, gradient = inner(z, **settings)
    return q / (1 + q), gradient / ((1 + q) ** 2)[:, None]


def _ridge(z: Array, shift: float) -> tuple[Array, Array]:
    s = z.sum(axis=1) + shift
    return s**2, np.broadcast_to(2 * s[:, None], z.shape)


def _square(z: Array, centre: Array) -> tuple[Array, Array]:
    return ((z - centre) ** 2).sum(axis=1), 2 * (z - centre)


def _entry(z: Array, target: float, row: int, column: int, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    k, n, m = shape
    W, S = z[:, : k * n].reshape(-1, k, n), z[:, k * n :].reshape(-1, k, m)
    w, s = W[:, :, row], S[:, :, column]
    error = (w * s).sum(axis=1) - target
    by_w, by_s = np.zeros_like(W), np.zeros_like(S)
    by_w[:, :, row], by_s[:, :, column] = error[:, None] * s, error[:, None] * w
    return 0.5 * error**2, np.concatenate([by_w.reshape(len(z), -1), by_s.reshape(len(z), -1)], axis=1)


def _on_orbit(point: Array, W: Array, S: Array) -> Array:
    """The nearest (A^T W, A^-1 S): a minimisation over A from what fits W, what fits S, and what lies between."""
    k, size = len(W), W.size
    w, s = point[:size].reshape(W.shape), point[size:].reshape(S.shape)

    def value(a: Array) -> tuple[float, Array]:
        A = a.reshape(k, k)
        try:
            B = np.linalg.inv(A)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(a)
        first, second = A.T @ W - w, B @ S - s
        gradient = W @ first.T - B.T @ second @ S.T @ B.T
        return 0.5 * float((first**2).sum() + (second**2).sum()), gradient.ravel()

    by_w, by_s = np.linalg.lstsq(W.T, w.T, rcond=None)[0], np.linalg.pinv(np.linalg.lstsq(S.T, s.T, rcond=None)[0].T)
    flip = np.diag([-1.0] + [1.0] * (k - 1))
    starts = [by_w, by_s, 0.5 * (by_w + by_s), np.eye(k), flip, -np.eye(k)]
    A = _lowest(value, (start.ravel() for start in starts), gtol=1e-9).x.reshape(k, k)
    return np.concatenate([(A.T @ W).ravel(), np.linalg.solve(A, S).ravel()])


def _relu(z: Array, x: Array, y: float, shape: tuple[int, int], decay: float) -> tuple[Array, Array]:
    W, v = z[:, : -shape[0]].reshape(-1, *shape), z[:, -shape[0] :]
    before = W @ x
    hidden = np.maximum(before, 0.0)
    margin = y * (v * hidden).sum(axis=1)
    slope = -y * np.exp(-np.logaddexp(0.0, margin))
    by_v = slope[:, None] * hidden
    by_w = (slope[:, None] * v * (before >= 0))[:, :, None] * x
    gradient = np.concatenate([by_w.reshape(len(z), -1), by_v], axis=1) + 2 * decay * z
    return np.logaddexp(0.0, -margin) + decay * (z**2).sum(axis=1), gradient
