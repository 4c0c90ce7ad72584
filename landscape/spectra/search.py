"""The search behind `eigsh`: how it expands the basis, restarts it and confirms that nothing was missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products
from landscape.operators.vectors import orthonormal
from landscape.spectra.basis.place import BasisChoice
from landscape.spectra.callbacks import RunningEstimate, stops
from landscape.spectra.confirm import Chain, companions
from landscape.spectra.krylov import Krylov
from landscape.spectra.results import Eigenpairs
from landscape.spectra.task import Claim, State, Stop, Task, open_place, search_place, usual_columns
from landscape.spectra.wanted import Wanted

# Probability, per confirmation, that an eigenvalue that was missed stays hidden from the random chain.
RISK = 1e-4

# Rounds in a row without a new direction after which the search gives up, so that it ends whatever rounding does.
_IDLE = 100

# Steps of a chain that had to restart before small residuals alone are believed.
_CHAIN_STEPS = 20

# Given start vectors whose sum has turned by less than this many tolerances are all taken into the basis.
_TURNED = 3.0

# Products that are usually allowed: this many, or some for each pair.
_LEAST_LIMIT, _LIMIT_PER_PAIR = 1000, 20

# When the bounds need smaller residuals, they go on by this factor.
_TIGHTER = 0.3


class Search:
    """One search: the task, the Krylov process (where the products are taken in) and where it stands.

    `run` is a call of `eigsh`. A process that has products already, for some other purpose, goes on with `settle`.

    Where all pairs above a threshold are asked for, those that the basis has there are the wanted ones: there are more
    of them as it grows, and the basis may then grow to `columns`.
    """

    def __init__(self, A: LinearOperator, task: Task, krylov: Krylov, rng: torch.Generator) -> None:
        self.A, self.task, self.krylov, self.rng, self.columns = A, task, krylov, rng, krylov.capacity
        # products would be burnt for a residual below the floor
        target = max(task.tol - task.floor, task.floor)
        self.state = State(krylov.ritz(), torch.zeros(0, dtype=torch.long), target, matvecs=krylov.size)
        self.wanted = Wanted(task, self.state)
        if krylov.size:
            self._rayleigh_ritz()

    @classmethod
    def run(
        cls, A: LinearOperator, task: Task, start: Tensor, rng: torch.Generator, seed: int, basis: BasisChoice
    ) -> Eigenpairs:
        """Search from these columns until nothing is missed or the products run out."""
        block = max(task.width, start.shape[-1])
        if task.above is None:
            place, columns = search_place(A, task.k, block, basis), usual_columns(task.k)
        else:
            (place, most), columns = open_place(A, task.k, block, basis), usual_columns(1)
            task = replace(task, k=most)
        search = cls(A, task, Krylov(A, min(place.columns, columns), place.where), rng)
        search.columns = place.columns
        try:
            search.settle(start)
            return search._result(seed)
        finally:
            search.krylov.basis.close()

    def settle(self, start: Tensor | None = None) -> State:
        """Search, from the basis as it is or from new columns, until nothing is missed or the products run out."""
        state = self.state
        try:
            if start is not None:
                self._begin(start)
            while not state.stopped:
                self._converge()
                state.main_steps = state.main_steps or state.matvecs
                if self.krylov.exhausted or not self.task.confirm or self._confirm():
                    state.stopped = "certified"
            self._converge()  # the chain may have brought in pairs within tol of the wanted ones; values only improve
        except Stop as stop:
            state.stopped = state.stopped or str(stop)
        return state

    def _begin(self, start: Tensor) -> None:
        """Random columns enter at once. Of given ones their sum enters first: if its image shows that they still
        are nearly invariant, all of them are worth a product each, else the sum alone is the better start.
        """
        if self.task.width < start.shape[-1]:
            ones = torch.ones(start.shape[-1], 1, dtype=torch.float64)
            total = self.krylov.inject(self.A.space.combine(start, ones))
            if total.shape[-1]:
                self._expand(total)
                if not self._invariant(start):
                    return
        self._expand(self.krylov.inject(start[..., : self._limit - self.state.matvecs]))

    def _invariant(self, start: Tensor) -> bool:
        """Whether A times the only basis vector so far lies in the span of the start's columns, up to some tol."""
        space, rest = self.A.space, self.krylov.pending
        span = orthonormal(space, start, None, 100.0 * torch.finfo(start.dtype).eps)
        rest = rest - space.combine(span, space.inner(span, rest))
        return float(space.inner(rest, rest).sum()) <= (_TURNED * self.state.target * self.state.largest) ** 2

    def _result(self, seed: int) -> Eigenpairs:
        task, state = self.task, self.state
        listed = torch.cat([self.wanted.indices, self.wanted.near])
        values = state.ritz.values[listed].clone()
        residuals = state.ritz.residuals[listed] + task.floor * state.largest
        small = bool((residuals <= task.tol * state.largest).all())
        certified = state.stopped == "certified"
        marginal = None if task.above is None else (values - task.above).abs() <= self.wanted.tolerance
        return Eigenpairs(
            values=values,
            vectors=self.krylov.combine(state.ritz.coefficients[:, listed]),
            residuals=residuals,
            converged=certified and (small or state.largest == 0.0) and not self.wanted.capped,
            confirmed=certified and (task.confirm or self.krylov.exhausted),
            matvecs=state.matvecs,
            seed=seed,
            above=task.above,
            marginal=marginal,
            more=self.wanted.capped,
            holders=self.A.space.holders,
            footprint=self.krylov.basis.footprint,
        )

    # -- rounds ---------------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        """Products allowed."""
        return max(_LEAST_LIMIT, _LIMIT_PER_PAIR * self.wanted.count) if self.task.limit is None else self.task.limit

    def _expand(self, X: Tensor) -> None:
        """The products with X, which is part of the basis already."""
        task, state = self.task, self.state
        if X.shape[-1] == 0:  # what was proposed turned out to be rounding
            state.idle += 1
            if state.idle > _IDLE:
                raise Stop("idle")
            return
        state.idle = 0
        self.krylov.absorb(products(self.A, X))
        state.matvecs += X.shape[-1]
        self._rayleigh_ritz()
        if stops(self.A, task.callback, state.matvecs, self._limit, self._so_far):
            raise Stop("callback")

    def _so_far(self) -> RunningEstimate:
        """The best value, and how far an eigenvalue may be from it."""
        ritz, best = self.state.ritz, self.state.order[0]
        error = float(ritz.residuals[best]) + self.task.floor * self.state.largest
        return RunningEstimate(float(ritz.values[best]), error, "lambda_min" if self.task.which == "SA" else "lambda_1")

    def _rayleigh_ritz(self) -> None:
        state = self.state
        state.ritz = self.krylov.ritz()
        state.order = self.task.order(state.ritz.values)
        state.largest = max(state.largest, float(state.ritz.values.abs().max()))

    def _make_room(self, b: int) -> int:
        """Make room for b columns, fewer when the products run out."""
        krylov, state, k = self.krylov, self.state, self.wanted.count
        b = min(b, self._limit - state.matvecs, self.A.shape[0] - krylov.size)
        if b < 1:
            raise Stop("products")
        if self.task.above is not None:
            krylov.enlarge(min(self.columns, usual_columns(k)))
        if krylov.size + b > krylov.capacity:
            keep = min(k + max(1, (krylov.capacity - k) // 2), krylov.capacity - b)
            krylov.restart(state.ritz.coefficients[:, state.order[:keep]])
            state.restarts += 1
            self._rayleigh_ritz()
        return b

    def _propose(self, width: int, beyond: int = 0) -> None:
        """Expand by candidates that make up the residuals of the open pairs, see `_open`.

        A random vector where there is no candidate; the largest residual where no pair is open.
        """
        candidates = self.krylov.pending.shape[-1]
        if candidates == 0:
            self._make_room(1)
            self._expand(self.krylov.inject(self.A.space.random(1, "normal", self.rng)))
            return
        b = self._make_room(min(width, candidates))
        ritz, chosen = self.state.ritz, self.wanted.open(beyond)
        if len(chosen) == 0:
            chosen = ritz.pending.argmax().reshape(1)
        Y = self.krylov.B @ ritz.coefficients[:, chosen]
        norms = Y.norm(dim=0)
        Y = torch.cat([Y[:, norms > 0] / norms[norms > 0], torch.eye(Y.shape[0], dtype=Y.dtype)], dim=1)
        self._expand(self.krylov.propose(torch.linalg.qr(Y).Q[:, :b]))

    def _converge(self) -> None:
        """Expand by the residual of the first wanted pair that is open, until none is."""
        while not (self.krylov.exhausted or self.wanted.complete):
            self._propose(self.task.width)

    # -- nothing missed -------------------------------------------------------------------------------------

    def _confirm(self) -> bool:
        """Bound all wanted values from above with a random chain; False when the search has to go on."""
        krylov, state, n = self.krylov, self.state, self.A.shape[0]
        free = krylov.capacity - krylov.size
        tight = krylov.capacity < n and free < min(_CHAIN_STEPS, krylov.capacity // 2)
        self._make_room(free + 1 if tight else 1)
        before, tolerance = self.wanted.claims, self.wanted.tolerance
        chain = self._start_chain()
        start, restarts = state.matvecs, state.restarts
        while not krylov.exhausted:
            if self.wanted.moved(before):
                state.doubt = 1.0
                return False
            chain.measure()
            levels = [chain.level(one.last + tolerance, n, RISK / state.doubt, one.signs) for one in before]
            if self._bounds_hold(chain, levels):
                return True
            tops = [chain.top(one.signs) for one in before]
            beyond = any(top > one.last + tolerance for top, one in zip(tops, before, strict=True))
            if beyond or (None not in levels and not self._bounds_hold(chain, tops)):
                # no level will do: the wanted pairs couple too strongly to what is left
                state.target *= _TIGHTER
                self._converge()
                return krylov.exhausted or (
                    not self.wanted.moved(before) and state.restarts == restarts and self._bounds_hold(chain, levels)
                )
            direction = chain.direction()
            if direction is not None:
                self._make_room(1)
                if state.restarts > restarts:
                    return self._believe(before, state.matvecs - start)
                self._expand(krylov.propose(direction))
            if not chain.advance():
                # an invariant space to rounding: a new chain looks beside it, what both miss is their doubts' product
                state.doubt *= max(chain.doubt(one.last + tolerance, n, one.signs) for one in before)
                return False
        return True

    def _start_chain(self) -> Chain:
        """A random vector beside the Ritz vectors that have converged far enough not to couple to it."""
        space, ritz, wanted = self.A.space, self.state.ritz, self.wanted.indices
        rest = self.state.order[len(wanted) :]
        chosen = companions(ritz.values[rest], ritz.pending[rest], self.wanted.claims, self.wanted.tolerance)
        settled = torch.cat([wanted, rest[chosen]])
        reach = float(ritz.values[settled].abs().max()) if len(settled) else 0.0
        S, coupling = ritz.coefficients[:, settled], float(ritz.pending[settled].norm())
        g = space.random(1, "normal", self.rng)
        X = self.krylov.inject(g)
        start = self.krylov.basis.inner(g)[:, 0]
        self._expand(X)
        return Chain(self.task.floor, self.krylov, start, S, len(wanted), reach, coupling)

    def _bounds_hold(self, chain: Chain, levels: Sequence[float | None]) -> bool:
        """No wanted value can be larger than what was found by more than tol."""
        refined = self.state.ritz.coefficients[:, self.state.order[: chain.wanted]]
        tolerance = self.wanted.tolerance
        return all(
            level is not None
            and any(claim.holds(chain.upper_bounds(level, claim.signs, U), level, tolerance) for U in (None, refined))
            for claim, level in zip(self.wanted.claims, levels, strict=True)
        )

    def _believe(self, before: list[Claim], steps: int) -> bool:
        """Memory is too short for a whole chain, which its bound needs: find the best unwanted pair as well.

        That, after as many steps as the main run took, is the weaker ground that small budgets allow.
        """
        while not self.krylov.exhausted:
            if self.wanted.moved(before):
                return False
            if len(self.wanted.open(1)) == 0 and steps >= max(self.state.main_steps, _CHAIN_STEPS):
                return True
            self._propose(1, beyond=1)
            steps += 1
        return True
