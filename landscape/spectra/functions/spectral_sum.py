"""tr f(A) by stochastic Lanczos quadrature on what a short Krylov space leaves (Chen and Hallman, arXiv 2205.01736).

    tr f(A) = tr(Q^T f(A) Q) + (n - q) E u^T f(A) u,    u uniform on the sphere orthogonal to Q.

Q holds the first q vectors of one long Lanczos process, whose T gives the first term; outliers of the spectrum and what
f makes of them lie in it, so that random vectors have to find the mean of the bulk only. Multiples of the identity in
f(A) add nothing to the variance, since the u have length one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, error_floor, require_finite
from landscape.spectra.basis.place import BasisChoice, Footprint, Place, Where, together
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.chains import Chains, chains_place
from landscape.spectra.functions.quadrature import LEAST_STEPS, Integral, due, ended, integral, times
from landscape.spectra.functions.results import SpectralSum
from landscape.spectra.functions.scalar import Scalar
from landscape.spectra.krylov import Krylov
from landscape.statistics import mean_stderr

DEFAULT_MATVECS = 500
MAX_MATVECS = 5000  # with rtol

# Root mean square errors for 500 products at n = 2000, nine spectra and six functions, 125 products for a Q of 94
# against none: 5 to 50 times smaller where there are outliers or decay, at worst 1.6 times larger where there are not.
_SHARE, _KEPT = 0.25, 0.75
_LARGEST = 200  # steps of that process,
_LOOSE, _LARGEST_LOOSE = 0.01, 64  # or with an rtol that asks for no more than that
_SHORT = 48  # columns of a basis that a budget which holds few vectors is divided into
_FEW = 40  # products, below which all of them go to random vectors

_TOGETHER = 4  # random vectors at a time
_EXACT_FIRST = 256  # with an rtol, matrices up to this size are taken whole at once

# A quadrature is accurate enough at this part of the standard error, or of the rtol, that is asked.
_PART = 0.2


@dataclass(frozen=True)
class Asked:
    """What is asked of an estimate, as in `trace_of`; `name` is what its callback is told."""

    rtol: float | None
    matvecs: int | None
    basis: BasisChoice
    generator: torch.Generator | None
    callback: Callback | None
    name: str = "trace of f"

    def limit(self, n: int) -> int:
        """Products allowed. Raises `ValueError` for what cannot be asked."""
        if self.rtol is not None and not self.rtol > 0:
            raise ValueError(f"rtol must be positive, not {self.rtol}")
        if self.matvecs is not None and self.matvecs < 1:
            raise ValueError(f"matvecs must be at least 1, not {self.matvecs}")
        default = min(n, DEFAULT_MATVECS) if self.rtol is None else min(2 * n, MAX_MATVECS)
        return default if self.matvecs is None else self.matvecs


def spectral_sum(A: LinearOperator, f: Scalar, asked: Asked) -> SpectralSum:
    """As `trace_of`, of an f whose domain is known."""
    run = _Run(A, f, asked)
    try:
        return run.whole()
    finally:
        A.release()


class _Run:
    """The products made and what they have told."""

    def __init__(self, A: LinearOperator, f: Scalar, asked: Asked) -> None:
        self.A, self.f, self.asked, self.rtol = A, f, asked, asked.rtol
        self.n, self.limit = A.shape[0], asked.limit(A.shape[0])
        self.rng, self.seed = A.space.generator(asked.generator)
        self.floor = error_floor(A)
        self.used, self.stopped = 0, False
        self.kept: Krylov | None = None  # whose basis is Q
        self.inside: Integral | None = None  # of Q
        self.before = 0  # products for it
        self.samples: list[Integral] = []
        self.fewest = 0  # steps of a sample

    @property
    def q(self) -> int:
        """Vectors in Q."""
        return 0 if self.kept is None else self.kept.basis.size

    def whole(self) -> SpectralSum:
        fits = self.n**2 * self.A.dtype.itemsize <= self.A.memory
        dense = fits and self.limit >= self.n
        if dense and (self.rtol is None or self.n <= _EXACT_FIRST):
            return self._exact()
        cap = max(int(self.limit * (1 - _SHARE)) // _TOGETHER, min(LEAST_STEPS, self.limit // 2), 1)
        depth, (place, at_once) = self._places(min(self.n, max(cap, self._room)))
        window = depth if at_once else place.columns
        try:
            if at_once > 1 and self.limit >= _FEW:
                self._deflate(min(self._room, depth), place.where)
            kept = [] if self.kept is None else [self.kept.basis.footprint]
            taken = [Footprint(0, place.where), *kept]
            checked = _TOGETHER  # samples at which the rtol is looked at
            while self.q < self.n and not self.stopped:
                left = self.limit - self.used
                affordable = left // self.fewest if self.fewest else min(left, max(2, left // LEAST_STEPS))
                count = min(max(1, at_once - (self.kept is not None)), affordable)
                if count < 1:
                    break
                before = self.used
                chains = self._sample(count, window, cap, place.where)
                if self.used == before:
                    break
                taken.append(together([*kept, chains.footprint]))
                if len(self.samples) < checked:
                    continue
                if self._reached() or self._rounded():
                    break
                checked *= 2
                ahead = (checked - len(self.samples)) * self.fewest
                if self.rtol is not None and dense and ahead > self.n <= self.limit - self.used:
                    return self._exact()
            return replace(self._result(), footprint=max(taken, key=lambda one: one.vectors))
        finally:
            if self.kept is not None:
                self.kept.basis.close()

    def _places(self, depth: int) -> tuple[int, tuple[Place, int]]:
        """Columns of a basis, where they lie and how many bases fit: shorter ones before fewer of them.

        A process goes on beyond its columns, orthogonalised against the latest.
        """
        while True:
            found = chains_place(self.A, 1 + _TOGETHER, depth, self.asked.basis, "the trace of a function")
            if found[1] > _TOGETHER or depth <= _SHORT:
                return depth, found
            depth = max(_SHORT, depth // 2)

    @property
    def _room(self) -> int:
        """Steps of the process that Q comes from."""
        largest = _LARGEST if self.rtol is None or self.rtol < _LOOSE else _LARGEST_LOOSE
        return min(largest, int(self.limit * _SHARE), self.n)

    # -- Q ---------------------------------------------------------------------------------------------------

    def _deflate(self, room: int, where: Where) -> None:
        """One long process, whose first vectors are Q. Where a Krylov space ends, a random vector begins another one.

        That finds further copies of eigenvalues; once a space has one dimension the matrix is a multiple of the
        identity on what is left.
        """
        self.kept = chain = Krylov(self.A, room, where)
        begun = 0
        while chain.size < room and not self.stopped:
            X = chain.propose()
            if X.shape[-1] == 0:
                if chain.size == begun + 1:
                    break
                begun, X = chain.size, chain.inject(self.A.space.random(1, "normal", self.rng))
            if X.shape[-1] == 0:
                break
            chain.absorb(self.A @ X)
            self.used = self.before = self.used + 1
            self.stopped = self._stops()
        q = chain.size if ended(chain) else begun + max(1, int(_KEPT * (chain.size - begun)))
        self.inside = integral(chain, self.f, self.floor, q)
        chain.basis.restart(torch.eye(chain.size, q, dtype=torch.float64))

    def _outside(self, count: int) -> Tensor:
        """Random vectors orthogonal to Q."""
        V = self.A.space.random(count, "normal", self.rng)
        if self.kept is None:
            return V
        return self.kept.basis.project(self.kept.basis.project(V))

    # -- random vectors --------------------------------------------------------------------------------------

    def _sample(self, count: int, window: int, cap: int, where: Where) -> Chains:
        """Quadratures of so many vectors, with as many steps as they need beside the scatter."""
        chains = Chains(self.A, self._outside(count), window, where)
        try:
            last = 0
            while chains.steps < cap and not self.stopped and self.used + count <= self.limit:
                running = chains.step()
                if not running:
                    break
                self.used += len(running)
                self.stopped = self._stops()
                if due(chains.steps, last):
                    last = chains.steps
                    if self._good(self._integrals(chains), chains.steps):
                        break
            self.samples += self._integrals(chains)
            self.fewest = chains.steps if not self.fewest else min(self.fewest, chains.steps)
        finally:
            chains.close()
        return chains

    def _integrals(self, chains: Chains) -> list[Integral]:
        return [integral(chain, self.f, self.floor) for chain in chains.each if chain.size]

    def _good(self, new: list[Integral], steps: int) -> bool:
        """Whether these are accurate enough beside the error that the products allow."""
        value, scatter, _, rounding = self._summed([*self.samples, *new])
        _, _, quadrature, _ = self._summed(new)
        if self.rtol is not None:
            goal = _PART * self.rtol * abs(value)
        elif math.isfinite(scatter):  # at the end of the products
            taken = len(self.samples) + len(new)
            planned = max(taken, (self.limit - self.before) // steps)
            goal = _PART * scatter * math.sqrt(taken / planned)
        else:
            goal = 1e-3 * abs(value)
        return quadrature <= max(goal, rounding)

    # -- what is known ---------------------------------------------------------------------------------------

    def _summed(self, samples: list[Integral]) -> tuple[float, float, float, float]:
        """Value, standard error, error of the quadratures, and rounding."""
        inside = self.inside or Integral(0.0, 0.0, 0.0, math.inf, -math.inf)
        if self.q >= self.n:
            return inside.value, 0.0, inside.difference, inside.rounding
        if not samples:
            return math.nan, math.inf, math.inf, 0.0
        rest = self.n - self.q
        mean, stderr = mean_stderr(torch.tensor([one.value for one in samples], dtype=torch.float64))
        quadrature = sum(one.difference for one in samples) / len(samples)
        rounding = sum(one.rounding for one in samples) / len(samples)
        return (
            inside.value + rest * float(mean),
            rest * float(stderr),
            inside.difference + rest * quadrature,
            inside.rounding + rest * rounding,
        )

    def _reached(self) -> bool:
        value, *errors = self._summed(self.samples)
        return self.rtol is not None and sum(errors) <= self.rtol * abs(value)

    def _rounded(self) -> bool:
        """Nothing but rounding is left of the error."""
        _, scatter, quadrature, rounding = self._summed(self.samples)
        return scatter + quadrature <= rounding

    def _stops(self) -> bool:
        return stops(self.A, self.asked.callback, self.used, self.limit, partial(self._told, self.samples))

    def _told(self, samples: list[Integral]) -> RunningEstimate:
        value, *errors = self._summed(samples)
        return RunningEstimate(value, sum(errors), self.asked.name)

    def _result(self) -> SpectralSum:
        value, *errors = self._summed(self.samples)
        if self.samples:
            require_finite(self.A, value)
        met = [one for one in (self.inside, *self.samples) if one is not None]
        return SpectralSum(
            value=value,
            stderr=sum(errors),
            matvecs=self.used,
            converged=self._reached() if self.rtol is not None else not self.stopped,
            seed=self.seed,
            quadrature=errors[1],
            probes=len(self.samples),
            steps=self.fewest,
            lowest=min(one.lowest for one in met),
            highest=max(one.highest for one in met),
        )

    def _exact(self) -> SpectralSum:
        """From all eigenvalues."""
        columns: list[Tensor] = []
        done = 0
        for block in self.A.columns():
            columns.append(block.double().cpu())
            done += block.shape[-1]
            unknown = partial(RunningEstimate, math.nan, math.inf, self.asked.name)
            if stops(self.A, self.asked.callback, self.used + done, self.limit, unknown) and done < self.n:
                return SpectralSum(math.nan, math.inf, self.used + done, False, self.seed)
        dense = torch.cat(columns, dim=-1)
        require_finite(self.A, dense)
        nodes = torch.linalg.eigvalsh(0.5 * (dense + dense.T))
        slack = self.floor * float(nodes.abs().max())
        values = self.f.of(nodes, slack)
        error = self.floor * float(values.abs().sum()) + times(torch.ones_like(nodes), self.f.change(nodes, slack))
        reached = self.rtol is None or error <= self.rtol * abs(float(values.sum()))
        used = self.used + self.n
        found = SpectralSum(float(values.sum()), error, used, reached, self.seed)
        return replace(found, lowest=float(nodes[0]), highest=float(nodes[-1]))
