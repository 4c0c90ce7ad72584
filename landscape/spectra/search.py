"""The search behind `eigsh`: its state, how it expands, restarts and confirms that nothing was missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, error_floor, products
from landscape.operators.vectors import orthonormal
from landscape.spectra.confirm import Chain, spared
from landscape.spectra.krylov import Krylov, Ritz
from landscape.spectra.results import Callback, Eigenpairs

Which = Literal["LA", "SA", "LM"]

# Probability, per confirmation, that an eigenvalue that was missed stays hidden from the random chain.
RISK = 1e-4

# Rounds in a row without a new direction after which the search gives up, so that it ends whatever rounding does.
_IDLE = 100

# Steps of a chain that had to restart before small residuals alone are believed.
_CHAIN_STEPS = 20

# Given start vectors whose sum has turned by less than this many tolerances are all taken into the basis.
_TURNED = 3.0

# When the bounds need smaller residuals, they go on by this factor.
_TIGHTER = 0.3


@dataclass(frozen=True)
class Task:
    """What is asked for, as in `eigsh`; `width` candidates enter the basis per round."""

    k: int
    which: Which
    tol: float
    limit: int
    width: int
    callback: Callback | None
    confirm: bool = True


class _Stop(Exception):
    """The products ran out, or the callback said so."""


class Search:
    """One call of `eigsh`."""

    def __init__(self, A: LinearOperator, task: Task, start: Tensor, rng: torch.Generator) -> None:
        self.A, self.task, self.rng = A, task, rng
        self.signs = {"LA": [1.0], "SA": [-1.0], "LM": [1.0, -1.0]}[task.which]
        self.floor = error_floor(A)
        # a residual below the floor is not seen, so products would be burnt for nothing
        self.target = max(task.tol - self.floor, self.floor)
        self.tol = max(task.tol, 2.0 * self.floor)
        self.matvecs = 0
        self.restarts = 0
        self.idle = 0
        self.main_steps = 0
        self.largest = 0.0
        self.doubt = 1.0
        self.space = Krylov(A, _capacity(A, task.k, max(task.width, start.shape[-1])))
        self.ritz: Ritz = self.space.ritz()
        self.order = self.wanted = torch.zeros(0, dtype=torch.long)

    def run(self, start: Tensor, seed: int) -> Eigenpairs:
        """Search until nothing is missed or the products run out."""
        certified = False
        try:
            self._begin(start)
            while not certified:
                self._converge()
                self.main_steps = self.main_steps or self.matvecs
                certified = self.space.exhausted or not self.task.confirm or self._confirm()
            self._converge()  # the chain may have brought in pairs within tol of the wanted ones; values only improve
        except _Stop:
            pass
        return self._result(certified, seed)

    def _begin(self, start: Tensor) -> None:
        """Random columns enter at once. Of given ones their sum enters first: if its image shows that they still
        are nearly invariant, all of them are worth a product each, else the sum alone is the better start.
        """
        if self.task.width < start.shape[-1]:
            total = self.space.inject(self.A.space.combine(start, torch.ones(start.shape[-1], 1, dtype=torch.float64)))
            if total.shape[-1]:
                self._expand(total)
                if not self._invariant(start):
                    return
        self._expand(self.space.inject(start[..., : self.task.limit - self.matvecs]))

    def _invariant(self, start: Tensor) -> bool:
        """Whether A times the only basis vector so far lies in the span of the start's columns, up to some tol."""
        rest = self.space.pending
        span = orthonormal(self.A.space, start, None, 100.0 * torch.finfo(start.dtype).eps)
        rest = rest - self.A.space.combine(span, self.A.space.inner(span, rest))
        return float(self.A.space.inner(rest, rest).sum()) <= (_TURNED * self.target * self.largest) ** 2

    def _result(self, certified: bool, seed: int) -> Eigenpairs:
        residuals = self.ritz.residuals[self.wanted] + self.floor * self.largest
        small = bool((residuals <= self.task.tol * self.largest).all())
        return Eigenpairs(
            values=self.ritz.values[self.wanted].clone(),
            vectors=self.space.combine(self.ritz.coefficients[:, self.wanted]),
            residuals=residuals,
            converged=certified and (small or self.largest == 0.0),
            confirmed=certified and (self.task.confirm or self.space.exhausted),
            matvecs=self.matvecs,
            seed=seed,
        )

    # -- rounds ---------------------------------------------------------------------------------------------

    def _expand(self, X: Tensor) -> None:
        """The products with X, which is part of the basis already."""
        if X.shape[-1] == 0:  # what was proposed turned out to be rounding
            self.idle += 1
            if self.idle > _IDLE:
                raise _Stop
            return
        self.idle = 0
        self.space.absorb(products(self.A, X))
        self.matvecs += X.shape[-1]
        self._look()
        top = float(self.ritz.values[self.order[0]])
        if self.task.callback is not None and self.task.callback(self.matvecs, self.task.limit, top):
            raise _Stop

    def _look(self) -> None:
        self.ritz = self.space.ritz()
        self.order = torch.argsort(self._key(self.ritz.values), descending=True, stable=True)
        self.wanted = self.order[: self.task.k]
        self.largest = max(self.largest, float(self.ritz.values.abs().max()))

    def _key(self, values: Tensor) -> Tensor:
        """Larger is better."""
        return {"LA": values, "SA": -values, "LM": values.abs()}[self.task.which]

    def _threshold(self) -> float:
        """What the true k-th value must not exceed."""
        return float(self._key(self.ritz.values[self.wanted[-1]])) + self.tol * self.largest

    def _room(self, b: int) -> int:
        """Make room for b columns, fewer when the products run out."""
        space = self.space
        b = min(b, self.task.limit - self.matvecs, self.A.shape[0] - space.size)
        if b < 1:
            raise _Stop
        if space.size + b > space.capacity:
            k = self.task.k
            keep = min(k + max(1, (space.capacity - k) // 2), space.capacity - b)
            space.restart(self.ritz.coefficients[:, self.order[:keep]])
            self.restarts += 1
            self._look()
        return b

    def _inject(self) -> None:
        """A random vector beside the basis."""
        self._room(1)
        self._expand(self.space.inject(self.A.space.random(1, "normal", self.rng)))

    def _propose(self, S: Tensor, b: int) -> None:
        """Expand by b candidates, first those that make up the residuals of Q S."""
        Y = self.space.B @ S
        norms = Y.norm(dim=0)
        Y = torch.cat([Y[:, norms > 0] / norms[norms > 0], torch.eye(Y.shape[0], dtype=Y.dtype)], dim=1)
        self._expand(self.space.propose(torch.linalg.qr(Y).Q[:, :b]))

    def _open(self, count: int) -> Tensor:
        """Those of the best `count` Ritz pairs whose residuals are too large."""
        best = self.order[:count]
        return best[self.ritz.pending[best] > self.target * self.largest]

    def _converge(self) -> None:
        """Expand by the residual of the first wanted pair that is open, until none is."""
        k = self.task.k
        while not self.space.exhausted:
            candidates = self.space.pending.shape[-1]
            if len(self.wanted) == k and len(self._open(k)) == 0:
                return
            if candidates == 0:
                self._inject()
                continue
            b = self._room(min(self.task.width, candidates))
            chosen = self._open(k)
            if len(chosen) == 0:  # fewer Ritz values than wanted: any candidate will do
                chosen = self.ritz.pending.argmax().reshape(1)
            self._propose(self.ritz.coefficients[:, chosen], b)

    # -- nothing missed -------------------------------------------------------------------------------------

    def _confirm(self) -> bool:
        """Bound all wanted values from above with a random chain; False when the search has to go on."""
        space = self.space
        free = space.capacity - space.size
        tight = space.capacity < self.A.shape[0] and free < min(_CHAIN_STEPS, space.capacity // 2)
        self._room(free + 1 if tight else 1)
        before, threshold = self._key(self.ritz.values[self.wanted]), self._threshold()
        chain = self._start_chain(threshold)
        start, restarts = self.matvecs, self.restarts
        while not space.exhausted:
            if self._moved(before):
                self.doubt = 1.0
                return False
            chain.measure()
            level = chain.level(threshold, self.A.shape[0], RISK / self.doubt)
            if level is not None:
                if self._bounded(chain, level):
                    return True
                if not self._bounded(chain, chain.top()):
                    # no level will do: the wanted pairs couple too strongly to what is left
                    self.target *= _TIGHTER
                    self._converge()
                    return space.exhausted or (
                        not self._moved(before) and self.restarts == restarts and self._bounded(chain, level)
                    )
            direction = chain.direction()
            if direction is not None:
                self._room(1)
                if self.restarts > restarts:
                    return self._believe(before, self.matvecs - start)
                self._expand(space.propose(direction))
            if not chain.advance():
                # an invariant space to rounding: a new chain looks beside it, what both miss is their doubts' product
                self.doubt *= chain.doubt(threshold, self.A.shape[0])
                return False
        return True

    def _start_chain(self, threshold: float) -> Chain:
        """A random vector beside the Ritz vectors that have converged far enough not to couple to it."""
        space, ritz = self.space, self.ritz
        rest = self.order[self.task.k :]
        values, pending = self._key(ritz.values[rest]), ritz.pending[rest]
        settled = torch.cat([self.wanted, rest[spared(values, pending, threshold, self.tol * self.largest)]])
        S, reach = ritz.coefficients[:, settled], float(ritz.values[settled].abs().max())
        coupling = float(ritz.pending[settled].norm())
        g = self.A.space.random(1, "normal", self.rng)
        X = space.inject(g)
        S = torch.cat([S, torch.zeros(X.shape[-1], S.shape[1], dtype=torch.float64)])
        start = self.A.space.inner(space.basis, g)[:, 0]
        self._expand(X)
        return Chain(space, start, S, reach, coupling, self.signs, self.floor)

    def _bounded(self, chain: Chain, level: float) -> bool:
        """No wanted value can be larger than what was found by more than tol."""
        allowed = self._key(self.ritz.values[self.wanted]) + self.tol * self.largest
        k = self.task.k
        if bool((chain.upper_bounds(level)[:k] <= allowed).all()):
            return True
        refined = self.ritz.coefficients[:, self.wanted]
        return bool((chain.upper_bounds(level, refined)[:k] <= allowed).all())

    def _moved(self, before: Tensor) -> bool:
        """The wanted values are no longer those found before."""
        now = self._key(self.ritz.values[self.wanted])
        return bool(((now - before).abs() > self.tol * self.largest).any())

    def _believe(self, before: Tensor, steps: int) -> bool:
        """Memory is too short for a whole chain, which its bound needs: find the best unwanted pair as well.

        That, after as many steps as the main run took, is the weaker ground that small budgets allow.
        """
        k = self.task.k
        while not self.space.exhausted:
            if self._moved(before):
                return False
            chosen = self._open(k + 1)
            if len(chosen) == 0 and steps >= max(self.main_steps, _CHAIN_STEPS):
                return True
            if self.space.pending.shape[-1] == 0:
                self._inject()
            else:
                self._room(1)
                chosen = self._open(k + 1)
                if len(chosen) == 0:
                    chosen = self.ritz.pending.argmax().reshape(1)
                self._propose(self.ritz.coefficients[:, chosen], 1)
            steps += 1
        return True


def _capacity(A: LinearOperator, k: int, block: int) -> int:
    """Basis columns that fit the budget beside what a restart and a round need."""
    n, memory, column = A.shape[0], A.memory, A.space.column_bytes
    columns = memory // column
    spare = 2 * block + 3
    # a restart holds the basis and a half to two thirds of it once more
    fits = (2 * (columns - spare) - k) // 3
    least = min(n, k + 3)
    if fits < least:
        needed = (3 * least + k + 1) // 2 + spare
        raise MemoryError(
            f"eigsh with k = {k} works with at least {needed} vectors of {column:,} bytes (k + 3 in the basis and "
            f"what a restart and a round need); the budget of {memory:,} bytes holds {columns}: give more memory "
            "or ask for fewer pairs"
        )
    return min(n, max(128, 4 * k), fits)
