"""Preconditioners as dense matrices, from solvers' own states; and a solver that sees turned coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Preconditioner(Protocol):
    """A solver that says what its preconditioner makes of vectors."""

    def leaves(self) -> list[Tensor]:
        """Its parameters."""
        ...

    def precondition(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """P^-1 times vectors in the shapes of the parameters."""
        ...

    def step(self) -> object:
        """Take in the gradients."""
        ...


def dense(solver: Preconditioner) -> Tensor:
    """P^-1 `(n, n)`, made symmetric beyond rounding, in the order of the parameters."""
    leaves = solver.leaves()
    sizes = [p.numel() for p in leaves]
    rows = []
    for unit in torch.eye(sum(sizes), dtype=leaves[0].dtype):
        parts = [v.view_as(p) for v, p in zip(unit.split(sizes), leaves, strict=True)]
        rows.append(torch.cat([v.reshape(-1) for v in solver.precondition(parts)]))
    S = torch.stack(rows)
    return 0.5 * (S + S.T)


class Rotated:
    """A solver that is given Q_L^T G Q_R for the gradient G of each parameter, Q random and orthogonal.

    A parameter is a matrix with its first dimension for rows. Its preconditioner is turned back: it is what the solver
    would have in coordinates that know nothing of the units.
    """

    def __init__(
        self, parameters: Sequence[Tensor], make: Callable[[list[Tensor]], Preconditioner], generator: torch.Generator
    ) -> None:
        def orthogonal(n: int) -> Tensor:
            return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=parameters[0].dtype))[0]

        self._parameters = [*parameters]
        self._turns = [(orthogonal(len(p)), orthogonal(p[0].numel())) for p in parameters]
        self._own = [torch.zeros_like(p.reshape(len(p), -1), requires_grad=True) for p in parameters]
        self._solver = make(self._own)

    def leaves(self) -> list[Tensor]:
        """The parameters, as they are."""
        return self._parameters

    def step(self) -> None:
        """Take in the parameters' `.grad`."""
        gradients = [p.grad for p in self._parameters]
        for q, v in zip(self._own, self._turned([g for g in gradients if g is not None]), strict=True):
            q.grad = v
        self._solver.step()

    def precondition(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """P^-1 in the parameters' own coordinates."""
        found = self._solver.precondition(self._turned(vectors))
        return [(L @ v @ R.T).view_as(p) for v, (L, R), p in zip(found, self._turns, self._parameters, strict=True)]

    def _turned(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        return [L.T @ v.reshape(len(v), -1) @ R for v, (L, R) in zip(vectors, self._turns, strict=True)]
