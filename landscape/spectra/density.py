"""The spectral density by stochastic Lanczos quadrature (Golub and Welsch 1969; Ubaru, Chen, Saad 2017).

Lanczos from a random unit vector v gives T whose eigenvalues t_j and squared first eigenvector entries w_j are the
Gauss quadrature of v^T f(A) v; its mean over v is tr f(A) / n. All probes run in lockstep, so that their products
go to the operator in blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, error_floor, products, require_finite
from landscape.randomness import generator_and_seed
from landscape.spectra.krylov import Krylov
from landscape.spectra.results import Callback, Density, tridiagonal


def density(
    A: LinearOperator,
    *,
    probes: int = 8,
    steps: int = 64,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Density:
    """The spectral density as `probes` quadratures of `steps` nodes; up to probes * steps products.

    Probes are normal and normalised, so that every probe's weights sum to 1. Probes run in chunks such that their
    bases fit `A.memory`. Where not even one basis fits, vectors are orthogonalised against the most recent ones
    that fit: converged eigenvalues may then come as several nodes that share the weight, which leaves curve, mass
    and moments right; `complete` is False. `steps` beyond n (or an early breakdown) pads with weight 0.

    The callback is called as (products made, products planned, largest |node| so far); True stops: the probes are
    then cut at the step they have reached, those not begun are left out.

    Raises `ValueError` for probes < 1 or steps < 1, `FloatingPointError` when a product is not finite,
    `MemoryError` when not even five vectors fit.
    """
    if probes < 1 or steps < 1:
        raise ValueError(f"probes and steps must be at least 1, not {probes} and {steps}")
    rng, seed = generator_and_seed(generator)
    n = A.shape[0]
    depth = min(steps, n)
    columns = A.memory // A.space.column_bytes
    if columns < 5:
        raise MemoryError(f"density needs at least 5 vectors, the budget of {A.memory:,} bytes holds {columns}")
    # the buffers grow by doubling, which holds a basis one and a half times
    at_once = min(probes, int(columns // (depth + depth // 2 + 4)))
    window = None if at_once >= 1 else int(columns - 3)
    at_once = max(1, at_once)
    run = _Run(A, depth, window, probes * depth, callback)
    try:
        for first in range(0, probes, at_once):
            run.chunk(A.space.random(min(at_once, probes - first), "normal", rng))
            if run.stopped:
                break
    finally:
        A.release()
    rules = run.rules
    width = steps if not run.stopped else max(nodes.numel() for nodes, _ in rules)
    nodes = torch.stack([torch.cat([t, t[-1:].expand(width - t.numel())]) for t, _ in rules])
    weights = torch.stack([torch.cat([w, w.new_zeros(width - w.numel())]) for _, w in rules])
    return Density(nodes, weights, n, run.matvecs, seed, error_floor(A), not run.stopped and window is None)


class _Run:
    """All probes of one call."""

    def __init__(
        self, A: LinearOperator, depth: int, window: int | None, planned: int, callback: Callback | None
    ) -> None:
        self.A, self.depth, self.window, self.planned, self.callback = A, depth, window, planned, callback
        self.matvecs, self.stopped, self.largest = 0, False, 0.0
        self.rules: list[tuple[Tensor, Tensor]] = []

    def chunk(self, V: Tensor) -> None:
        """Run the columns of V in lockstep."""
        A = self.A
        chains: list[Krylov | _Windowed] = [
            Krylov(A, self.depth) if self.window is None else _Windowed(A, self.window) for _ in range(V.shape[-1])
        ]
        fronts = [(chain, chain.inject(V[..., i : i + 1])) for i, chain in enumerate(chains)]
        for step in range(self.depth):
            if step:
                fronts = [(chain, chain.propose()) for chain, _ in fronts]
            fronts = [(chain, X) for chain, X in fronts if X.shape[-1]]
            if not fronts:
                break
            W = products(A, torch.cat([X for _, X in fronts], dim=-1))
            for i, (chain, _) in enumerate(fronts):
                chain.absorb(W[..., i : i + 1])
                self.largest = max(self.largest, abs(float(chain.H[-1, -1])))
            self.matvecs += len(fronts)
            if self.callback is not None and self.callback(self.matvecs, self.planned, self.largest):
                self.stopped = True
                break
        self.rules += [_quadrature(chain.H) for chain in chains]


def _quadrature(H: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the tridiagonal part of H."""
    nodes, S = torch.linalg.eigh(tridiagonal(H.diagonal(), H.diagonal(-1)))
    weights = S[0] ** 2
    return nodes, weights / weights.sum()


class _Windowed:
    """Lanczos that keeps, and orthogonalises against, the last `window` vectors only."""

    def __init__(self, A: LinearOperator, window: int) -> None:
        self.A, self.window = A, window
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.scale = 0.0
        self.basis = self.rest = A.space.zeros(0)

    @property
    def H(self) -> Tensor:
        return tridiagonal(*(torch.tensor(x, dtype=torch.float64) for x in (self.alpha, self.beta)))

    def inject(self, V: Tensor) -> Tensor:
        self.basis = V * (1.0 / float(self.A.space.inner(V, V).sqrt()))
        return self.basis

    def propose(self) -> Tensor:
        norm = float(self.A.space.inner(self.rest, self.rest).sqrt())
        if norm <= 10.0 * torch.finfo(self.A.dtype).eps * self.scale:
            return self.rest[..., :0]
        self.beta.append(norm)
        q = self.rest * (1.0 / norm)
        self.basis = torch.cat([self.basis[..., max(0, self.basis.shape[-1] + 1 - self.window) :], q], dim=-1)
        return q

    def absorb(self, W: Tensor) -> None:
        for attempt in range(2):
            h = self.A.space.inner(self.basis, W)
            require_finite(self.A, h)
            if attempt == 0:
                self.alpha.append(float(h[-1]))
                self.scale = max(self.scale, float(self.A.space.inner(W, W).sqrt()))
            W = W - self.A.space.combine(self.basis, h)
        self.rest = W
