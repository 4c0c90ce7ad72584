"""The spectral density by stochastic Lanczos quadrature (Golub and Welsch 1969; Ubaru, Chen, Saad 2017).

Lanczos from a random unit vector v gives T whose eigenvalues t_j and squared first eigenvector entries w_j are the
Gauss quadrature of v^T f(A) v; its mean over v is tr f(A) / n. All probes run in lockstep, so that their products
go to the operator in blocks.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, error_floor
from landscape.spectra.basis.place import BasisChoice, Footprint
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import carries_check
from landscape.spectra.chains import Chains, chains_place
from landscape.spectra.krylov import Krylov
from landscape.spectra.results import Density, tridiagonal


@carries_check
def density(
    A: LinearOperator,
    *,
    probes: int = 8,
    steps: int = 64,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Density:
    """The spectral density as `probes` quadratures of `steps` nodes; up to probes * steps products.

    Probes are normal and normalised, so that every probe's weights sum to 1. Bases lie on the "device", in "host"
    memory or on "disk", in files that are gone afterwards; with `basis="auto"` on the first where one fits: `A.memory`,
    half of what the host has free, half of what the disk has. Probes run in chunks such that their bases fit.
    Where not even one basis fits, vectors are orthogonalised against the most recent ones
    that fit: converged eigenvalues may then come as several nodes that share the weight, which leaves curve, mass
    and moments right; `complete` is False. `steps` beyond n (or an early breakdown) pads with weight 0.

    The callback is called as (products made, products planned, largest |node| so far); True stops: the probes are
    then cut at the step they have reached, those not begun are left out.

    Raises `ValueError` for probes < 1 or steps < 1, `FloatingPointError` when a product is not finite,
    `MemoryError` when not even five vectors fit, or the disk has filled up.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import density
        >>> A = MatrixOperator(torch.diag((torch.arange(200) < 60).float()))
        >>> share = density(A, generator=torch.Generator().manual_seed(0)).mass(0.5, 1.5)
        >>> round(share.value, 1), share.stderr < 0.1
        (0.3, True)
    """
    if probes < 1 or steps < 1:
        raise ValueError(f"probes and steps must be at least 1, not {probes} and {steps}")
    rng, seed = A.space.generator(generator)
    n = A.shape[0]
    depth = min(steps, n)
    place, at_once = chains_place(A, probes, depth, basis, "density")
    capacity = min(depth, place.columns)
    taken = Footprint(0, place.where)
    rules: list[tuple[Tensor, Tensor]] = []
    matvecs, stopped, largest = 0, False, RunningEstimate(0.0, 0.0, "largest |node|")
    try:
        for first in range(0, probes, max(1, at_once)):
            V = A.space.random(min(max(1, at_once), probes - first), "normal", rng)
            chains = Chains(A, V, capacity, place.where)
            try:
                while chains.steps < depth and (running := chains.step()):
                    matvecs += len(running)
                    stopped = stops(A, callback, matvecs, probes * depth, partial(_largest, chains.each, largest))
                    if stopped:
                        break
            finally:
                chains.close()
            taken = max(taken, chains.footprint, key=lambda found: found.vectors)
            rules += [quadrature(chain.H) for chain in chains.each]
            largest = largest if callback is None else _largest(chains.each, largest)
            if stopped:
                break
    finally:
        A.release()
    width = steps if not stopped else max(nodes.numel() for nodes, _ in rules)
    nodes = torch.stack([torch.cat([t, t[-1:].expand(width - t.numel())]) for t, _ in rules])
    weights = torch.stack([torch.cat([w, w.new_zeros(width - w.numel())]) for _, w in rules])
    complete = bool(at_once) and not stopped
    return Density(nodes, weights, n, matvecs, seed, error_floor(A), complete, footprint=taken)


def _largest(chains: list[Krylov], before: RunningEstimate) -> RunningEstimate:
    """The largest |node| of chains now and before, and its residual: an eigenvalue is as near as that."""
    # values alone are found faster than pairs
    tops = [float(torch.linalg.eigvalsh(_jacobi(chain.H)).abs().max()) for chain in chains]
    value, residual = chains[tops.index(max(tops))].largest()
    return max(before, RunningEstimate(value, residual + error_floor(chains[0].A) * value, before.name))


def _jacobi(H: Tensor) -> Tensor:
    """The tridiagonal part of H, whose eigenvalues are the nodes."""
    return tridiagonal(H.diagonal(), H.diagonal(-1))


def quadrature(H: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the tridiagonal part of H."""
    nodes, S = torch.linalg.eigh(_jacobi(H))
    weights = S[0] ** 2
    return nodes, weights / weights.sum()
