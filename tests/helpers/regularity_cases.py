"""Trajectories of plain gradient descent, random ones, and those of a quadratic."""

from __future__ import annotations

import numpy as np

from landscape.regularity import Trajectory

GAPS = np.geomspace(0.01, 10, 30)


def made(r, D, E=None, *, grad_norm=10.0, steps=None):
    """A trajectory with these r_k, D_k and E_k = f_k(x_K) - f_k^*, by default as small as D allows."""
    r, D = np.asarray(r, dtype=float), np.asarray(D, dtype=float)
    E = np.maximum(0, -D) if E is None else np.broadcast_to(E, r.shape)
    ones = np.ones(r.shape)
    return Trajectory(r, D, 0 * D, -E, grad_norm * ones, ones, steps=steps)


def random_trajectory(rng, rows=None, *, interpolated=0.0):
    rows = rows or int(rng.integers(1, 30))
    D = rng.normal(size=rows)
    E = rng.exponential(size=rows) * (rng.random(rows) >= interpolated)
    return made(rng.normal(size=rows) + rng.normal(), D, np.maximum(E, -D * (D < 0)))


def quadratic(seed=0, count=600, offset=0.0):
    """Gradient descent on (x - x*)^T A (x - x*) / 2 + offset towards its minimiser; the eigenvalues of A."""
    rng = np.random.default_rng(seed)
    A = np.diag(np.geomspace(0.05, 4.0, 6))
    x, end = rng.normal(size=6), np.zeros(6)
    points = []
    for _ in range(count):
        points.append(x)
        x = x - 0.2 * A @ x
    X = np.array([*points, end])
    f = 0.5 * np.einsum("ki,ij,kj->k", X, A, X) + offset
    G = X @ A
    full = np.full(len(X), offset)
    norms = np.linalg.norm(G, axis=1), np.linalg.norm(X, axis=1)
    return Trajectory((G * X).sum(axis=1), f, full, offset, *norms), np.diag(A)


def fields(t):
    """What a trajectory is made from, by name."""
    names = ("inner", "loss", "final_loss", "infimum", "grad_norm", "distance")
    return {name: getattr(t, name) for name in names}
