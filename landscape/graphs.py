"""Operators of an objective: sweeps over batches that keep each batch's graph, and never use a stale one.

A product differentiates a graph that was built once. As many batches' graphs are kept as fit the memory budget;
the others are rebuilt at every product. All are dropped when a parameter, buffer or flag has changed in any way.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from landscape.data import Batch, tensors_in
from landscape.memory import available_memory
from landscape.objective import Objective
from landscape.operators import LinearOperator
from landscape.state import Snapshot

# Seconds: a trial shorter than this is repeated more often.
_SHORT = 0.25


class Graph(Protocol):
    """What is kept of one batch."""

    def products(self, V: Tensor) -> Tensor:
        """The batch's products with the rows of `(k, n)`: `(k, n)`."""
        ...

    def roots(self) -> list[Tensor]:
        """The tensors whose graphs are kept."""
        ...


class ObjectiveOperator(LinearOperator):
    """A curvature matrix of an objective: (sum over batches of count * batch matrix) / (sum of counts).

    A subclass implements `_graph(batch, outputs, count)`. `release()` drops the kept graphs; a product after any
    change of the model rebuilds them by itself.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__(
            objective.size, objective.dtype, objective.device, noise=objective.rounding, memory=objective.memory
        )
        self.objective = objective
        self._kept: dict[int, tuple[Graph, float]] = {}
        self._empty: set[int] = set()
        self._snapshot: Snapshot | None = None
        self._bytes = 0
        self._bytes_per_input = 0.0
        self._keepers = 0

    def _graph(self, batch: Batch, outputs: Any, count: float) -> Graph:
        raise NotImplementedError

    def _rebuilt_products(self, batch: Batch, V: Tensor) -> tuple[Tensor, float]:
        """Products with a graph that is not kept; a subclass may have a cheaper way than building it."""
        graph, count = self._build(batch)
        return (self._products(graph, batch, V) if graph is not None else torch.zeros_like(V)), count

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
        return available_memory(self.device) + self._bytes if self._memory == "auto" else int(self._memory)

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
        self._empty.clear()
        self._snapshot = None
        self._bytes = 0

    def _matmat(self, V: Tensor) -> Tensor:
        try:
            with self.objective.measuring():
                return self._product(V.T.contiguous()).T
        except RuntimeError as error:
            self._drop()
            explained = _explained(error)
            if explained is error:
                raise
            raise explained from error
        except BaseException:
            self._drop()  # a graph that was interrupted half-way is not worth keeping
            raise

    def _product(self, V: Tensor) -> Tensor:
        """A V^T for rows `(k, n)`, inside `measuring()`: rows again."""
        return self._accumulate(self._sweep(V))

    def _accumulate(self, parts: Iterator[tuple[Tensor, float]]) -> Tensor:
        """The weighted mean (or the sum) of the batches' products, with as few passes over memory as can be."""
        total: Tensor | None = None
        alone, terms = True, 0.0
        for products, count in parts:
            if total is None:
                total, terms = products, count
                continue
            if alone:
                total, alone = total * terms, False
            total.add_(products, alpha=count)
            terms += count
        if total is None:
            self.objective.normalise(0.0, 0.0)  # raises: there are no loss terms
            raise AssertionError
        return total if alone else self.objective.normalise(total, terms)

    def _sweep(self, V: Tensor) -> Iterator[tuple[Tensor, float]]:
        for batch, graph, count in self._graphs():
            if graph is not None:
                yield self._products(graph, batch, V), count
                continue
            products, count = self._rebuilt_products(batch, V)
            if count:
                yield products, count

    def _graphs(self) -> Iterator[tuple[Batch, Graph | None, float]]:
        """One pass: each batch with its kept graph and weight, or with None where no graph can be kept."""
        if self._snapshot is not None and not self.objective.unchanged(self._snapshot):
            self._drop()
        if self._snapshot is None:
            self._snapshot = self.objective.snapshot()
        budget = self._budget()
        for batch in self.objective.sweep(skip=lambda index: index in self._kept or index in self._empty):
            if batch.index in self._empty:
                continue
            if batch.index in self._kept:
                yield batch, *self._kept[batch.index]
            elif self._expected_bytes(batch) + self._bytes > budget:
                yield batch, None, 0.0
            else:
                kept, count = self._build(batch)
                if kept is None:
                    self._empty.add(batch.index)
                    continue
                self._keep(batch, kept, count)
                yield batch, kept, count

    def _build(self, batch: Batch) -> tuple[Graph | None, float]:
        outputs = self.objective.outputs(batch)
        count = self.objective.terms(outputs, batch)
        return (self._graph(batch, outputs, count), count) if count else (None, 0.0)

    def _keep(self, batch: Batch, graph: Graph, count: float) -> None:
        if self._bytes_per_input == 0.0:
            self._bytes_per_input = graph_bytes(graph.roots()) / _input_bytes(batch)
        self._kept[batch.index] = (graph, count)
        self._bytes += self._expected_bytes(batch)

    def _expected_bytes(self, batch: Batch) -> int:
        """Of a kept graph, from the first one's size; 0 before the first, which a product needs in any case."""
        return int(self._bytes_per_input * _input_bytes(batch))


def _input_bytes(batch: Batch) -> int:
    return max(1, sum(t.nbytes for t in tensors_in(batch.inputs)))


def graph_bytes(roots: Iterable[Tensor]) -> int:
    """Bytes that the autograd graphs of `roots` keep alive (distinct storages, parameters not counted)."""
    storages: dict[int, int] = {}
    for node in _nodes(roots):
        for name in dir(node):
            if name.startswith("_saved_"):
                try:
                    saved = getattr(node, name)
                except RuntimeError:
                    continue
                for t in saved if isinstance(saved, tuple | list) else (saved,):
                    if isinstance(t, Tensor) and not (t.is_leaf and t.requires_grad):
                        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(storages.values())


def refuse_dead_ends(roots: Iterable[Tensor]) -> None:
    """Raise `RuntimeError` when a first derivative passes through a function that has no second one.

    torch marks such functions with a node that raises when it is reached, but differentiating in chosen inputs
    prunes it: without this check the product would silently miss everything behind it.
    """
    for node in _nodes(roots):
        if type(node).__name__ == "Error":
            raise RuntimeError(
                "the model has a custom autograd function marked once_differentiable: it has no second derivative; "
                "use FiniteDifferenceHessian, or an implementation of that function in torch operations"
            )


def _nodes(roots: Iterable[Tensor]) -> Iterator[Any]:
    """The nodes of the graphs of `roots`, leaves left out."""
    seen: set[Any] = set()
    stack = [root.grad_fn for root in roots if root.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen or hasattr(node, "variable"):  # the leaf's own node holds the parameter
            continue
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions if following is not None)
        yield node


def _explained(error: RuntimeError) -> RuntimeError:
    """The cause in words, for the failures that people meet."""
    text = str(error)
    if "is not implemented" in text and "derivative for" in text:
        return RuntimeError(
            f"{text.splitlines()[0]} -- this operation has no second derivative: use FiniteDifferenceHessian, or "
            "another implementation of that layer"
        )
    if "modified by an inplace operation" in text:
        return RuntimeError(
            f"{text.splitlines()[0]} -- the model overwrites a value that its own second derivative needs: make that "
            "operation out of place (inplace=False)"
        )
    return error


def fastest(ways: dict[str, Callable[[], Tensor]], device: torch.device) -> tuple[str, Tensor]:
    """The name of the fastest way and its result.

    The first way that works is the reference; ways that fail, fall back to a loop inside torch, or disagree with the
    reference beyond rounding are left out. Raises what the first way raised when none works.
    """
    results: dict[str, Tensor] = {}
    times: dict[str, float] = {}
    failure: Exception | None = None
    for name, way in ways.items():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                seconds, result = _timed(way, device)
        except (RuntimeError, NotImplementedError, UserWarning) as error:
            failure = failure or error
            continue
        if not results or _agree(result, next(iter(results.values()))):
            results[name], times[name] = result, seconds
    if not results:
        assert failure is not None
        raise failure
    if len(results) > 1:
        for name in results:  # the first run of a kernel is not a fair sample
            again = 1 if times[name] > _SHORT else 4
            times[name] = min(_timed(ways[name], device)[0] for _ in range(again))
    best = min(results, key=lambda name: times[name])
    return best, results[best]


def _timed(way: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    _synchronise(device)
    start = time.perf_counter()
    result = way()
    _synchronise(device)
    return time.perf_counter() - start, result


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _agree(a: Tensor, b: Tensor) -> bool:
    # a way that is wrong is wrong by much more than the rounding of two orders of summation
    return bool((a - b).norm() <= 1e-2 * b.norm().clamp_min(torch.finfo(b.dtype).tiny))
