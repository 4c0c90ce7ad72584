"""The spectrum of every diagonal block of a matrix: outermost eigenvalues, trace, norms, ranks and density of each.

All of it from Lanczos processes that run together, see `blockwise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.operators.blocks.block_diagonal import BlockDiagonal, DiagonalBlock
from landscape.operators.linear import error_floor
from landscape.operators.matrix import MatrixOperator
from landscape.spectra.basis.place import BasisChoice
from landscape.spectra.blocks.lockstep import blockwise
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import Measured
from landscape.spectra.density import density, quadrature
from landscape.spectra.eigsh import eigsh
from landscape.spectra.krylov import lanczos
from landscape.spectra.results import Density, Eigenpairs, Estimate
from landscape.statistics import jackknife


@dataclass(frozen=True)
class BlockSpectrum:
    """The spectrum of one diagonal block.

    Attributes:
        n: its entries.
        top: its k largest eigenvalues with their vectors.
        bottom: its smallest eigenvalue; None for a matrix that is positive semi-definite by construction.
        density: of all eigenvalues.
        trace: their sum, from the density's probes.
        frobenius: the square of the Frobenius norm, the sum of their squares.
        norm: the largest |eigenvalue|, and how far it may be from it.
        stable_rank: frobenius / norm^2, between 1 and the rank.
        effective_rank: exp of the entropy of |eigenvalues| / their sum (Roy and Vetterli 2007). Its error is that of
            the probes and what the second half of the Lanczos steps has changed: an estimate, no bound.
        matvecs: products with this block.
    """

    n: int
    top: Eigenpairs
    bottom: Eigenpairs | None
    density: Density = field(repr=False)
    trace: Estimate[float]
    frobenius: Estimate[float]
    norm: tuple[float, float]
    stable_rank: Estimate[float]
    effective_rank: Estimate[float]
    matvecs: int

    def __str__(self) -> str:
        return (
            f"largest eigenvalue {self.top.first(1)}, trace {self.trace.value:.4g} +- {self.trace.stderr:.2g}, stable "
            f"rank {self.stable_rank.value:.3g}, effective rank {self.effective_rank.value:.3g} of {self.n}"
        )


@dataclass(frozen=True)
class BlockSpectra(Measured):
    """The spectra of all diagonal blocks, by name.

    Attributes:
        blocks: of each, in the order of the matrix.
        matvecs: products with the block diagonal matrix; each advances all blocks that are not done.
        converged: all eigenvalues are within their tolerance.
        seed: block i has drawn from a generator with the seed (seed + i) modulo 2^63.
    """

    blocks: dict[str, BlockSpectrum]
    matvecs: int
    converged: bool
    seed: int

    def __getitem__(self, name: str) -> BlockSpectrum:
        return self.blocks[name]

    def __str__(self) -> str:
        return "\n".join([*(f"{name}: {one}" for name, one in self.blocks.items()), *self._remarks()])


def block_spectra(
    D: BlockDiagonal,
    *,
    k: int = 1,
    tol: float = 1e-3,
    probes: int = 4,
    steps: int = 32,
    basis: BasisChoice = "auto",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> BlockSpectra:
    """Largest eigenvalues, trace, norms, ranks and density of every diagonal block, in one run.

    Args:
        D: the block diagonal matrix.
        k, tol: of `eigsh`, for the largest eigenvalues of each block (all of them where it is smaller than k).
        probes, steps: of `density`.
        basis: where vectors lie that are kept, as for both.
        generator: its seed decides on the random vectors of all blocks.
        callback: called after each product of D, as (products made, products expected, the largest eigenvalue of any
            block so far); True stops all blocks with what they have.

    Returns the same as `eigsh` and `density` of `A.restrict(names)` for each block, to rounding. Each block keeps
    `probes` bases of `steps` vectors, together that many vectors of D: `D.memory` is shared out by the blocks' sizes.

    Raises `ValueError` for k, probes or steps < 1, else what these algorithms raise, with a note that names the block.

    Example:
        >>> import torch
        >>> from landscape import BlockDiagonal, GaussNewton, Objective
        >>> from landscape.spectra import block_spectra
        >>> model = torch.nn.Linear(2, 2)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 2)))
        >>> found = block_spectra(BlockDiagonal(GaussNewton(f), by="parameter"))
        >>> {name: round(one.stable_rank.value, 3) for name, one in found.blocks.items()}  # I / 2 and I
        {'weight': 4.0, 'bias': 2.0}
    """
    if min(k, probes, steps) < 1:
        raise ValueError(f"k, probes and steps must be at least 1, not {k}, {probes} and {steps}")
    _, seed = D.space.generator(generator)
    seeds = {name: (seed + i) % (1 << 63) for i, name in enumerate(D.layout)}
    planned = probes * steps + (12 + 2 * k) * (1 if D.positive_semidefinite else 2)
    before, watch = D.matvecs, _Watch()

    def spectrum(block: DiagonalBlock) -> BlockSpectrum:
        rng = torch.Generator().manual_seed(seeds[block.name])
        top = eigsh(block, min(k, block.shape[0]), tol=tol, basis=basis, generator=rng, callback=watch.told)
        bottom = None
        if not D.positive_semidefinite:
            bottom = eigsh(block, 1, which="SA", tol=tol, basis=basis, generator=rng, callback=watch.asked)
        found = density(block, probes=probes, steps=steps, basis=basis, generator=rng, callback=watch.asked)
        return _spectrum(block, top, bottom, found)

    def after() -> None:
        made = D.matvecs - before
        watch.stop = watch.stop or stops(D, callback, made, max(made, planned), lambda: watch.largest)

    blocks = blockwise(D, spectrum, after=after)
    pairs = [each for one in blocks.values() for each in (one.top, one.bottom) if each is not None]
    return BlockSpectra(
        blocks,
        D.matvecs - before,
        all(one.converged for one in pairs) and not watch.stop,
        seed,
        checked=D.checked,
        operator_noise=D.noise,
    )


class _Watch:
    """What the blocks' algorithms have told so far, and whether they are to stop."""

    def __init__(self) -> None:
        self.stop = False
        self.largest = RunningEstimate(-math.inf, name="lambda_1 of any block")

    def told(self, made: int, planned: int, estimate: RunningEstimate) -> bool:
        if estimate > self.largest:
            self.largest = RunningEstimate(float(estimate), estimate.error, self.largest.name)
        return self.stop

    def asked(self, made: int, planned: int, estimate: RunningEstimate) -> bool:
        return self.stop


def _spectrum(block: DiagonalBlock, top: Eigenpairs, bottom: Eigenpairs | None, found: Density) -> BlockSpectrum:
    n, ends = block.shape[0], [top] if bottom is None else [top, bottom]
    matvecs = sum(one.matvecs for one in ends) + found.matvecs
    norm = max((abs(float(one.values[0])), float(one.residuals[0])) for one in ends)
    trace, frobenius = (_sum_of_powers(found, power, norm[0]) for power in (1, 2))
    stable = frobenius.value / norm[0] ** 2 if norm[0] else 0.0
    error = stable * (frobenius.stderr / frobenius.value + 2 * norm[1] / norm[0]) if stable else 0.0
    return BlockSpectrum(
        n,
        top,
        bottom,
        found,
        trace,
        frobenius,
        norm,
        Estimate(stable, error, matvecs, frobenius.converged, found.seed),
        effective_rank(found, error_floor(block)),
        matvecs,
    )


def _sum_of_powers(found: Density, power: int, largest: float) -> Estimate[float]:
    """tr(A^power). Its error is at least what random directions give for these eigenvalues, `largest` among them.

    For a unit vector v the variance of v^T B v is 2 / (n + 2) times that of the eigenvalues of B. A few probes that all
    miss the one large eigenvalue agree with each other, and would claim an error that is far too small.
    """
    n, mean = found.n, found.moment(power)
    square = max(found.moment(2 * power).value, largest ** (2 * power) / n)
    known = math.sqrt(max(0.0, 2 / (n + 2) * (square - mean.value**2)) / len(found.nodes))
    return Estimate(n * mean.value, n * max(mean.stderr, known), found.matvecs, found.complete, found.seed)


def effective_rank(found: Density, floor: float) -> Estimate[float]:
    """exp of the entropy of |eigenvalues| / their sum, from a density.

    The error is that of the probes and the difference to rules of half as many nodes, as the entropy is no polynomial;
    and `floor`, the relative error of a product, for every eigenvalue.
    """

    def of(nodes: Tensor, weights: Tensor) -> Tensor:
        sizes = nodes.abs()
        mean, logs = ((weights * f).sum(dim=1).mean() for f in (sizes, torch.special.xlogy(sizes, sizes)))
        return found.n * mean * torch.exp(-logs / mean) if float(mean) else mean

    value, stderr = jackknife(lambda kept: of(found.nodes[kept], found.weights[kept]), len(found.nodes))
    halves = [_halved(t, w) for t, w in zip(found.nodes, found.weights, strict=True)]
    coarse = torch.stack([of(t[None], w[None]) for t, w in halves]).mean()
    fine = torch.stack([of(t[None], w[None]) for t, w in zip(found.nodes, found.weights, strict=True)]).mean()
    error = float(stderr) + abs(float(fine - coarse)) + floor * found.n
    return Estimate(float(value), error if float(value) else 0.0, found.matvecs, found.complete, found.seed)


def _halved(nodes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The rule of half as many nodes from the same start: Lanczos on the nodes repeats that of the operator."""
    A = MatrixOperator(torch.diag(nodes))
    return quadrature(lanczos(A, weights.sqrt(), max(1, len(nodes) // 2)).matrix)
