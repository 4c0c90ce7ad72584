"""Operators of an objective: sweeps over batches that keep each batch's graph, and never use a stale one.

A product differentiates a graph that was built once. As many batches' graphs are kept as fit the memory budget;
the others are rebuilt at every product. All are dropped when a parameter, buffer or flag has changed in any way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, Self

import torch
from torch import Tensor
from typing_extensions import override

from landscape.memory import budget
from landscape.objective.batch import Batch, tensors_in
from landscape.objective.evaluation import Evaluation
from landscape.objective.graph import nodes
from landscape.objective.objective import Objective
from landscape.objective.state import Snapshot
from landscape.objective.together import Sum
from landscape.operators.autograd import cause, graph_bytes
from landscape.operators.check import Check, worst
from landscape.operators.linear import LinearOperator
from landscape.operators.self_check import Claims, self_check
from landscape.operators.sharded_space import ShardedSpace

_OTHERS = 3  # batches that are checked beside the first


class Graph(Protocol):
    """What is kept of one batch."""

    def products(self, V: Tensor) -> Tensor:
        """The batch's products with the rows of `(k, n)`: `(k, n)`."""
        ...

    def roots(self) -> list[Tensor]:
        """The tensors whose graphs are kept."""
        ...

    def part(self, objective: Objective, places: Sequence[int]) -> Graph:
        """The diagonal block of some of the leaves, those of a restricted objective, on the same graph."""
        ...


class ObjectiveOperator(LinearOperator):
    """A curvature matrix of an objective: (sum over batches of weight * batch matrix) / (sum of weights).

    A subclass implements `_graph(evaluation)`. `release()` drops the kept graphs; a product after any
    change of the model rebuilds them by itself. `claims` are held against differences before the first product.
    """

    claims: Claims = ()

    def __init__(self, objective: Objective, size: int | None = None) -> None:
        size = objective.size if size is None else size
        super().__init__(size, objective.dtype, objective.device, memory=objective.memory)
        if objective.sharded:
            self.space = self._shared_space(objective, size)
        self.space.ranks = objective.ranks
        self.objective = objective
        self._kept: dict[int, tuple[Graph, float]] = {}
        self._empty: set[int] = set()
        self._alike: set[tuple[int, int]] = set()  # batches and numbers of vectors whose products went the same way
        self._snapshot: Snapshot | None = None
        self._bytes = 0
        self._bytes_per_input = 0.0
        self._keepers = 0
        self._checked: Check | None = None
        self._looked_at: set[int] = set()
        self._operations: set[str] = set()  # that batches went through
        self._others: dict[frozenset[str], Batch] = {}  # to be checked: those with operations that are new

    def _shared_space(self, objective: Objective, size: int) -> ShardedSpace:
        """Of a sharded model: each rank has its rows. Raises `TypeError` for an operator on other vectors."""
        layout, holders = objective.shares()
        if size != layout.size:
            raise TypeError(f"{type(self).__name__} is not for sharded models: its vectors are not the parameters'")
        return ShardedSpace(layout, holders, self.dtype, self.device, lambda: objective.gathered_peak)

    @property
    @override
    def checked(self) -> Check | None:
        return self._checked

    @override
    def _measured_noise(self) -> float:
        return self.objective.noise

    def _graph(self, e: Evaluation) -> Graph:
        raise NotImplementedError

    def _rebuilt_products(self, batch: Batch, V: Tensor) -> tuple[Tensor, float]:
        """Products with a graph that is not kept; a subclass may have a cheaper way than building it."""
        graph, weight = self._build(batch)
        return (self._products(graph, batch, V) if graph is not None else torch.zeros_like(V)), weight

    def _products(self, graph: Graph, batch: Batch, V: Tensor) -> Tensor:
        """Vectors that go through a graph together need its memory once each: as many at a time as fit."""
        if len(V) == 1:  # asking the system what is free is not for every product
            return graph.products(V)
        together = max(1, self._budget() // max(1, self._expected_bytes(batch)))
        if len(V) <= together:
            return graph.products(V)
        return torch.cat([graph.products(rows) for rows in V.split(together)])

    def _budget(self) -> int:
        """Bytes for kept graphs, those kept already included."""
        return budget(self._memory, self.device, held=self._bytes)

    def restrict(self, names: Iterable[str] | str) -> Self:
        """The same matrix for some of the parameters: the diagonal block, built from smaller graphs."""
        return type(self)(self.objective.restrict(names))

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Inside, `release()` waits for the end: several algorithms in a row use the graphs of one pass."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            self.release()

    def release(self) -> None:
        """Drop the kept graphs; within `keeping()`, at its end."""
        if not self._keepers:
            self._drop()

    def _drop(self) -> None:
        self._kept.clear()
        self._alike.clear()
        self._empty.clear()
        self._snapshot = None
        self._bytes = 0

    def _matmat(self, V: Tensor) -> Tensor:
        self._check()
        return self._product(V.T.contiguous()).T

    def _product(self, V: Tensor) -> Tensor:
        """A V^T for rows `(k, n)`: rows again."""
        kind = type(self).__name__, len(V) > 1
        return self.objective.mean(lambda: self._own_sum(V), lambda: torch.zeros_like(V), rows=True, kind=kind)

    def _own_sum(self, V: Tensor) -> Sum:
        """Of this rank's batches."""
        with self._explained():
            with self.objective.measuring():
                found = self._accumulate(self._sweep(V), V)
            self._check_others()
            return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Graphs that an error has interrupted are dropped; known errors are told in words that help."""
        try:
            yield
        except RuntimeError as error:
            self._drop()
            known = cause(error)
            if known is None:
                raise
            raise known from error
        except BaseException:
            self._drop()  # a graph that was interrupted half-way is not worth keeping
            raise

    def _check(self) -> None:
        """Before the first product. Raises `WrongDerivatives`."""
        if self._checked is None:
            self._checked = self_check(self.objective, self.claims)

    def _note_operations(self, e: Evaluation) -> None:
        """A batch that goes through operations which none before it had is to be checked as well."""
        if self._checked is None or e.batch.index in self._looked_at:
            return
        self._looked_at.add(e.batch.index)
        operations = {type(node).__name__ for node in nodes(t for t in tensors_in(e.outputs) if t.requires_grad)}
        operations = self.objective.united(operations)
        new = frozenset(operations - self._operations)
        if new and self._operations and len(self._others) < _OTHERS:
            self._others[new] = e.batch
        self._operations |= operations

    def _check_others(self) -> None:
        """What the first batch could not show, such as a branch for long sequences. Raises `WrongDerivatives`."""
        while self._others:
            operations, batch = self._others.popitem()
            few = self.objective.alone().on([(batch.inputs, batch.targets)])
            found = self_check(few, self.claims, operations)
            self._checked = worst([self._checked, found])

    def _accumulate(self, parts: Iterator[tuple[Tensor, float]], V: Tensor) -> Sum:
        """The weighted sum of the batches' products, with as few passes over memory as can be.

        Products of a sharded model have their batch's weight in them.
        """
        total: Tensor | None = None
        factor, sum_of_weights = 1.0, 0.0
        for products, weight in parts:
            scale = 1.0 if self.objective.sharded else weight
            sum_of_weights += weight
            if total is None:
                total, factor = products, scale
                continue
            if factor != 1.0:
                total, factor = total * factor, 1.0
            total.add_(products, alpha=scale)
        return (torch.zeros_like(V) if total is None else total), factor, sum_of_weights

    def _sweep(self, V: Tensor) -> Iterator[tuple[Tensor, float]]:
        for batch, graph, weight in self._graphs():
            if graph is not None:
                yield self._kept_products(graph, batch, V), weight
                continue
            products, weight = self._rebuilt_products(batch, V)
            if weight or self.objective.lockstep:
                yield products, weight

    def _kept_products(self, graph: Graph, batch: Batch, V: Tensor) -> Tensor:
        products, alike = self.objective.repeated(
            lambda: self._products(graph, batch, V), (batch.index, len(V)) in self._alike
        )
        if alike:
            self._alike.add((batch.index, len(V)))
        return products

    def _graphs(self) -> Iterator[tuple[Batch, Graph | None, float]]:
        """One pass: each batch with its kept graph and weight, or with None where no graph can be kept."""
        stale = self._snapshot is not None and not self._snapshot.holds()
        if self.objective.anywhere(stale):
            self._drop()
        if self._snapshot is None:
            self._snapshot = self.objective.snapshot()
        budget: int | None = None  # asking the system what is free is not for products with graphs that are kept
        for batch in self.objective.sweep(skip=lambda index: index in self._kept or index in self._empty):
            if batch.index in self._empty:
                continue
            if batch.index in self._kept:
                yield batch, *self._kept[batch.index]
                continue
            budget = self._budget() if budget is None else budget
            if self.objective.anywhere(self._expected_bytes(batch) + self._bytes > budget):
                if self.objective.anywhere(self._bytes > budget):  # the first, built before its size was known
                    self._kept.clear()
                    self._bytes = 0
                yield batch, None, 0.0
            else:
                kept, weight = self._build(batch)
                if kept is None:
                    self._empty.add(batch.index)
                    continue
                if self._bytes_per_input == 0.0:
                    found = self.objective.saved_bytes() if self.objective.sharded else graph_bytes(kept.roots())
                    self._bytes_per_input = found / _input_bytes(batch)
                self._kept[batch.index] = (kept, weight)
                self._bytes += self._expected_bytes(batch)
                yield batch, kept, weight

    def _build(self, batch: Batch) -> tuple[Graph | None, float]:
        e = self.objective.evaluate(batch)
        if not e.weight and not e.lockstep:
            return None, 0.0
        self._note_operations(e)
        return self._graph(e), e.weight

    def _expected_bytes(self, batch: Batch) -> int:
        """Of a kept graph, from the first one's size; 0 before the first, which a product needs in any case."""
        return int(self._bytes_per_input * _input_bytes(batch))


def _input_bytes(batch: Batch) -> int:
    return max(1, sum(t.nbytes for t in tensors_in(batch.inputs)))
