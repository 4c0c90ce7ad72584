"""The block diagonal part of a curvature matrix: products with all of its blocks on the graphs of one pass.

A block's product differentiates the kept graph in the parameters of that block alone, so that it equals the product
with `A.restrict(names)`; but the model is run once for all blocks, and not once for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.operators.blocks.heads import Heads
from landscape.operators.blocks.partition import Block, By, partition, restricted
from landscape.operators.check import Check
from landscape.operators.curvature import Graph, ObjectiveOperator
from landscape.operators.linear import LinearOperator

_SMALL = 1 << 22  # bytes that a block may use, however small its share


class BlockDiagonal(ObjectiveOperator):
    """The matrix A with everything outside of its diagonal blocks left out, `(n, n)`.

    A product differentiates the kept graphs once for each block, as far as that block needs them, less for later ones:
    about 4 products with A for the twelve blocks of a transformer. `matvecs` counts products with this matrix. Blocks
    in which a vector is zero are skipped, so that one of `blocks[name]` costs what that block costs.

    Args:
        A: a curvature matrix of an objective: Hessian, GaussNewton, EmpiricalFisher, MonteCarloFisher,
            FunctionalHessian. Of a sum take the block diagonal of each.
        by: "layer" (the parameters of a module together: weight and bias), "parameter" (each by itself), a number (all
            layers whose names begin with the same so many parts: with 2, "h.0.attn" and "h.0.mlp" are block "h.0"), or
            patterns: `{"first": ["h.0.*", "wte.*"], "rest": "h.1.*"}`, or a list of them, each a block of that name.
            Every parameter has to be in exactly one block.
        heads: how many heads attention has: a number, "auto" (what its modules say) or `{pattern of modules: number}`.
            The rows of query, key and value weights (and biases) and the columns of the output projection are then a
            block for each head, `"h.0.attn.c_attn, query 0"`.

    Attributes:
        made_of: A.
        layout: which parameters, or parts of them, make each block.
        sizes: how many entries each has, by name.

    Raises:
        TypeError: A is no such matrix, or of a sharded model.
        ValueError: a pattern matches nothing, patterns overlap, parameters are left over, no attention is found.

    Example:
        >>> import torch
        >>> from landscape import BlockDiagonal, Hessian, Objective
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.tensor([1.0, 2.0])):  # f = (a b)^2
        ...     D = BlockDiagonal(Hessian(f))
        ...     print(list(D.blocks), D.to_dense())
        ['0', '1'] tensor([[8., 0.],
                [0., 2.]])
    """

    def __init__(self, A: LinearOperator, by: By = "layer", heads: Heads = None) -> None:
        if not isinstance(A, ObjectiveOperator) or A.shape[0] != A.objective.size:
            raise TypeError(
                f"BlockDiagonal is of a curvature matrix of an objective (Hessian, GaussNewton, a Fisher matrix), not "
                f"of {type(A).__name__}; of a sum take it of each: BlockDiagonal(A) + BlockDiagonal(B)"
            )
        if isinstance(A, BlockDiagonal):
            raise TypeError("a BlockDiagonal has its blocks: make this one of the matrix that it was made of")
        A.objective.only_whole("BlockDiagonal")
        super().__init__(A.objective)
        self.made_of = A
        self.claims = A.claims
        self.positive_semidefinite = A.positive_semidefinite
        self.layout: Mapping[str, Block] = partition(A.objective, by, heads)

    @property
    @override
    def zero(self) -> str:  # type: ignore[override]
        return self.made_of.zero

    @property
    def note(self) -> str | None:
        """That of A."""
        return getattr(self.made_of, "note", None)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """How many entries each block has, by name."""
        parts = self._by_name(torch.empty(1, self.shape[0], device="meta"))
        return {name: block.take(parts).shape[1] for name, block in self.layout.items()}

    @cached_property
    def blocks(self) -> Mapping[str, DiagonalBlock]:
        """Each block as an operator on the graphs of this one, by name.

        `release()` of one releases those of all: inside `with D.keeping():` they last.
        """
        return {name: DiagonalBlock(self, name) for name in self.layout}

    def cut(self, V: Tensor) -> dict[str, Tensor]:
        """Vectors `(n, k)` in pieces, `(entries, k)` by the names of the blocks."""
        parts = self._by_name(V.T)
        return {name: block.take(parts).T for name, block in self.layout.items()}

    def joined(self, pieces: Mapping[str, Tensor]) -> Tensor:
        """Vectors `(n, k)` from pieces `(entries, j)` with j <= k, zero in blocks and columns that are not given."""
        k = max(piece.shape[-1] for piece in pieces.values())
        rows = torch.zeros(k, self.shape[0], dtype=self.dtype, device=self.device)
        for name, piece in pieces.items():
            self.layout[name].put(piece.T, self._by_name(rows[: piece.shape[-1]]))
        return rows.T

    def restrict(self, names: Iterable[str] | str) -> BlockDiagonal:
        """What is left of the blocks with some of the parameters (names or globs)."""
        part = self.made_of.restrict(names)
        other = BlockDiagonal(part, "parameter")
        other.layout = restricted(self.layout, part.objective.names)
        return other

    def _by_name(self, rows: Tensor) -> dict[str, Tensor]:
        """Views of `(k, n)` in the parameters' shapes."""
        return dict(zip(self.objective.names, self.objective.split(rows), strict=True))

    def _graph(self, e: Evaluation) -> Graph:
        return _BlocksGraph(self.made_of._graph(e), self)

    @cached_property
    def groups(self) -> Mapping[tuple[str, ...], tuple[Objective, list[str]]]:
        """The blocks that have pieces of the same parameters, and the objective of these."""
        found: dict[tuple[str, ...], tuple[Objective, list[str]]] = {}
        for label, block in self.layout.items():
            if block.names not in found:
                found[block.names] = self.objective.restrict(block.names), []
            found[block.names][1].append(label)
        return found

    def __repr__(self) -> str:
        return (
            f"BlockDiagonal({type(self.made_of).__name__}, {len(self.layout)} blocks, n={self.shape[0]}, "
            f"dtype={self.dtype}, device={self.device})"
        )


class _BlocksGraph:
    """The graph of one batch, with the part of it that each block needs."""

    def __init__(self, whole: Graph, diagonal: BlockDiagonal) -> None:
        self._whole, self._diagonal = whole, diagonal
        places = {name: i for i, name in enumerate(diagonal.objective.names)}
        self._parts = {
            names: whole.part(objective, [places[name] for name in objective.names])
            for names, (objective, _) in diagonal.groups.items()
        }

    def roots(self) -> list[Tensor]:
        return self._whole.roots()

    def part(self, objective: Objective, places: Sequence[int]) -> Graph:
        raise TypeError("the blocks of a BlockDiagonal have no blocks of their own")

    def products(self, V: Tensor) -> Tensor:
        """Rows `(k, n)`: of each block the rows that are not zero in it."""
        D, out = self._diagonal, torch.zeros(V.shape, dtype=V.dtype, device=V.device)
        given, made = D._by_name(V), D._by_name(out)
        for names, (objective, labels) in D.groups.items():
            blocks = [D.layout[label] for label in labels]
            pieces = [block.take(given) for block in blocks]
            live = [piece.any(dim=1).nonzero()[:, 0] for piece in pieces]
            if sum(map(len, live)) == 0:
                continue
            rows = torch.zeros(sum(map(len, live)), objective.size, dtype=V.dtype, device=V.device)
            groups = list(zip(blocks, pieces, live, rows.split([len(one) for one in live]), strict=True))
            for block, piece, index, part in groups:
                block.put(piece[index], _named(objective, part))
            products = self._parts[names].products(rows)
            for (block, piece, index, _), part in zip(groups, products.split([len(one) for one in live]), strict=True):
                found = torch.zeros_like(piece)
                found[index] = block.take(_named(objective, part))
                block.put(found, made)
        return out


def _named(objective: Objective, rows: Tensor) -> dict[str, Tensor]:
    return dict(zip(objective.names, objective.split(rows), strict=True))


class DiagonalBlock(LinearOperator):
    """One block of a `BlockDiagonal`, on its graphs; equal to `A.restrict(names)` where it has these wholly."""

    def __init__(self, diagonal: BlockDiagonal, name: str) -> None:
        super().__init__(diagonal.sizes[name], diagonal.dtype, diagonal.device)
        self.space.ranks = diagonal.space.ranks
        self.name, self._diagonal = name, diagonal
        self.positive_semidefinite = diagonal.positive_semidefinite

    @property
    @override
    def zero(self) -> str:  # type: ignore[override]
        return self._diagonal.zero

    @property
    @override
    def memory(self) -> int:
        """Its share of the budget of all blocks, which may be worked on together; enough for a small one."""
        memory = self._diagonal.memory
        return min(memory, max(_SMALL, memory * self.shape[0] // self._diagonal.shape[0]))

    @property
    @override
    def checked(self) -> Check | None:
        return self._diagonal.checked

    @override
    def _measured_noise(self) -> float:
        return self._diagonal.noise

    @override
    def restrict(self, names: Iterable[str] | str) -> LinearOperator:
        """The matrix of some of the block's parameters, on graphs of its own."""
        block, part = self._diagonal.layout[self.name], self._diagonal.made_of.restrict(names)
        outside = [name for name in part.objective.names if name not in block.names]
        if outside:
            raise ValueError(f"{outside[0]!r} is not in block {self.name!r}, which has {', '.join(block.names)}")
        if not block.whole:
            raise TypeError(f"block {self.name!r} has parts of its parameters only: use .block(indices)")
        return part

    @override
    def release(self) -> None:
        self._diagonal.release()

    def _matmat(self, V: Tensor) -> Tensor:
        return self._diagonal.cut(self._diagonal @ self._diagonal.joined({self.name: V}))[self.name]
