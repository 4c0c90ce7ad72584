"""Which of the pairs that a search has are wanted, and what has to be proved of them."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.spectra.task import Claim, State, Task, key

# Of a value of the zero matrix: far above what a chain takes for no remainder.
_LEAST_TOLERANCE = 1e-250


class Wanted:
    """The wanted ones of the Ritz pairs, as a search stands: the best k, or all above a threshold, but k at most."""

    def __init__(self, task: Task, state: State) -> None:
        self.task, self.state = task, state

    @property
    def count(self) -> int:
        """How many are wanted."""
        return self.task.k if self.task.above is None else min(self.task.k, self._higher)

    @property
    def capped(self) -> bool:
        """More lie above the threshold than are wanted at most: the search is one for the best k, as any other."""
        return self.task.above is not None and self._higher > self.task.k

    @property
    def _higher(self) -> int:
        return int((self.state.ritz.values > self.task.threshold).sum())

    @property
    def indices(self) -> Tensor:
        """Of the wanted pairs, best first."""
        return self.state.order[: self.count]

    @property
    def near(self) -> Tensor:
        """Indices of those that have converged below the threshold, but so close that they cannot be told from it."""
        ritz, rest = self.state.ritz, self.state.order[self.count : self.task.k]
        close = ritz.values[rest] >= self.task.threshold - self.tolerance
        return rest[close & (ritz.pending[rest] <= self._target)]

    @property
    def complete(self) -> bool:
        """There are as many as are asked for, none of them open."""
        least = self.task.k if self.task.above is None else 1
        return len(self.state.order) >= least and len(self.open()) == 0

    @property
    def tolerance(self) -> float:
        """How far a value may be from the true one."""
        least = 2.0 * self.task.floor * self.state.largest
        if self.task.enough is not None:
            return max(least, self.task.enough - self.claims[0].last)
        return max(self.task.tol * self.state.largest, least, _LEAST_TOLERANCE)

    @property
    def _target(self) -> float:
        """The residual at which a pair has converged."""
        return self.state.target * self.state.largest

    def open(self, beyond: int = 0) -> Tensor:
        """Indices of the wanted pairs, and of so many beyond them, whose residuals are too large.

        Above a threshold the best pair below it counts while its residual lets it be one above; where nothing is
        proved, until it has converged.
        """
        task, ritz = self.task, self.state.ritz
        alone = task.above is not None and not self.capped
        best = self.state.order[: self.count + max(beyond, alone and not task.confirm)]
        best = best[ritz.pending[best] > self._target]
        if len(best) or not alone:
            return best
        first = self.state.order[self.count :][:1]
        pending = ritz.pending[first]
        return first[(pending > self._target) & (ritz.values[first] + pending > task.threshold)]

    @property
    def claims(self) -> list[Claim]:
        """What is said of the eigenvalues, at each end that is asked for."""
        task, found = self.task, self.state.ritz.values[self.indices]
        if task.above is not None and not self.capped:
            return [Claim((1.0,), torch.cat([found, found.new_tensor([task.above])]))]
        ends = len(task.ends)  # the best of each in turn
        parts = [(signs, found[i::ends]) for i, signs in enumerate(task.ends)]
        return [Claim(signs, key(signs, values)) for signs, values in parts if len(values)]

    def moved(self, before: list[Claim]) -> bool:
        """More was found than before."""
        return any(now.moved(then, self.tolerance) for now, then in zip(self.claims, before, strict=True))
