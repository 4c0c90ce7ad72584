"""f at many points, exactly, by the way that is fastest: point by point, or many points at once under vmap.

Both give f to rounding, but not the same last bits, and those under vmap depend on how many points go together. So
points are cut into chunks by their position alone, a chunk is evaluated whole, and the way is one for all of them. An
interrupted run is taken up with the way that its values testify to: the one that gives its first chunk again, bit by
bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from landscape.clock import stopwatch
from landscape.objective.objective import Objective
from landscape.objective.outputs.nests import mapped
from landscape.objective.running import recomputed, running_on
from landscape.objective.together import Sum
from landscape.operators.autograd import graph_bytes
from landscape.precision import accurate
from landscape.surface.points import Points, coarse_to_fine

Statistics = Literal["keep", "recompute"]
Callback = Callable[[int, int, Tensor], bool | None]
"""`callback(done, total, values)`, called once per chunk; values so far, nan where there is none. True stops."""
Chunks = Mapping[int, Sequence[int]]
"""Points by the number of their chunk, which are evaluated together."""

_CHUNK = 256  # points, at most
_SOME = 8  # points that both ways are tried on
_MANY = 32  # points: for fewer nothing is tried, and where that many fit, calling a pass costs more than computing it
_TOGETHER = 1 << 28  # bytes of what a pass makes of a batch, for the points that go together
# A way that is wrong (a loss that reads the parameters elsewhere) is wrong by more than some roundings.
_ROUNDINGS = 64.0
_SAME = 1e-3  # of the largest value; another machine or number of threads moves a float32 loss by less
_ONE_BY_ONE, _AT_ONCE = "point by point", "vmap"


@dataclass(frozen=True)
class Evaluated:
    """f at points.

    Attributes:
        values: float64 on the host, in the shape of the grid; nan where f was not evaluated.
        way: "point by point" or "vmap".
        evaluations: points evaluated, those of trials and of incomplete chunks included.
        complete: all points have a value.
    """

    values: Tensor
    way: str
    evaluations: int
    complete: bool


class Spread(Protocol):
    """Other processes that evaluate chunks."""

    def __call__(self, worker: Worker, chunks: Chunks) -> Iterator[tuple[int, Tensor]]:
        """Numbers of chunks with their values, in any order.

        Each is what `Worker(objective, worker.points, worker.statistics).run(worker.way, chunk)` is, where the
        objective is that of the worker in another process.
        """


def evaluate(
    objective: Objective,
    points: Points,
    shape: Sequence[int],
    *,
    statistics: Statistics = "keep",
    known: Tensor | None = None,
    callback: Callback | None = None,
    spread: Spread | None = None,
) -> Evaluated:
    """f at each of the points, which form a grid of that shape.

    Raises `ValueError` for known values of another shape, or that f does not have.
    """
    values = _known_values(known, shape)
    worker = Worker(objective, points, statistics)
    order, size = coarse_to_fine(shape), worker.chunk
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    flat, stopped = values.reshape(-1), False
    for number, found in _found(worker, chunks, flat, spread):
        missing = [i for i, p in enumerate(chunks[number]) if bool(flat[p].isnan())]
        if not missing:
            continue
        flat[[chunks[number][i] for i in missing]] = found[missing]
        done = len(points) - int(flat.isnan().sum())
        ask = None if callback is None else functools.partial(callback, done, len(points), values.clone())
        if objective.ranks.stopped(ask):
            stopped = bool(flat.isnan().any())
            break
    return Evaluated(values, worker.way, worker.evaluations, not stopped)


def _found(
    worker: Worker, chunks: Sequence[Sequence[int]], known: Tensor, spread: Spread | None
) -> Iterator[tuple[int, Tensor]]:
    """The chunks that are not known in whole, and first of all the one that the way is chosen with."""
    todo = {number: chunk for number, chunk in enumerate(chunks) if bool(known[list(chunk)].isnan().any())}
    if todo and len(chunks) > 1:
        yield 0, worker.choose(chunks[0], known[list(chunks[0])])
        todo.pop(0, None)
    if spread is None or not todo:
        yield from ((number, worker.run(worker.way, chunk)) for number, chunk in todo.items())
        return
    worker.evaluations += sum(len(chunk) for chunk in todo.values())
    yield from spread(worker, todo)


def _known_values(known: Tensor | None, shape: Sequence[int]) -> Tensor:
    if known is None:
        return torch.full(tuple(shape), torch.nan, dtype=torch.float64)
    values = torch.as_tensor(known).detach().to("cpu", torch.float64, copy=True)
    if values.shape != tuple(shape):
        raise ValueError(f"known= has shape {tuple(values.shape)}, the grid {tuple(shape)}: values of another run")
    return values


class Worker:
    """f at chunks of points, by one way or the other.

    Attributes:
        way: what `choose` has chosen, "point by point" before.
        evaluations: points evaluated.
    """

    def __init__(self, objective: Objective, points: Points, statistics: Statistics) -> None:
        self.objective = objective
        self.points = points
        self.statistics = statistics
        self.evaluations = 0
        self.way = _ONE_BY_ONE
        self._weights: dict[int, float] = {}

    @functools.cached_property
    def chunk(self) -> int:
        """How many points go together."""
        return 1 if self.statistics == "recompute" or len(self.points) <= _MANY else self._fitting()

    def _fitting(self) -> int:
        """A power of two that the model and the first batch alone decide."""

        def size() -> float:
            with self.objective.measuring():
                for batch in self.objective.sweep():
                    e = self.objective.evaluate(batch)
                    fixed = self.objective.criterion(mapped(e.outputs, Tensor.detach), batch.targets)
                    # a loss that reads the parameters itself (a penalty) would not see those that stand for them
                    return math.inf if fixed.requires_grad else graph_bytes([e.loss()])
            return 0.0

        most = max(self.objective.gathered(size))
        fitting = int(_TOGETHER / max(1.0, most))
        return 1 if fitting < 2 else min(_CHUNK, 1 << (fitting.bit_length() - 1))

    def choose(self, chunk: Sequence[int], known: Tensor) -> Tensor:
        """The first chunk's values, by the way that is taken from then on.

        Raises `ValueError` where known values are others than those.
        """
        found = self.run(_ONE_BY_ONE, chunk) if self.chunk == 1 else self._chosen(chunk, known)
        there = ~known.isnan() & found.isfinite() & known.isfinite()
        apart = (found - known)[there].abs()
        if bool((apart > _SAME * known[there].abs().max()).any() if apart.numel() else False):
            where = int(apart.argmax())
            raise ValueError(
                f"known= has {float(known[there][where]):.6g} at a point where f is {float(found[there][where]):.6g}: "
                "values of another model, of other data or directions"
            )
        return found

    def _chosen(self, chunk: Sequence[int], known: Tensor) -> Tensor:
        some = chunk[:_SOME]
        reference = self.run(_ONE_BY_ONE, some)
        try:
            fast, values = self._timed(_AT_ONCE, chunk)
        except Exception:  # whatever a user's model raises on tensors that stand for many
            return self._rest(chunk, reference)
        head, told = values[: len(some)], known[: len(some)]
        if not self._agree(head, reference):
            return self._rest(chunk, reference)
        there = ~told.isnan()
        if bool(there.any()):
            at_once = torch.equal(head[there], told[there])
            if torch.equal(reference[there], told[there]):
                at_once = at_once and self._prefers_many()
        elif _same(head, reference) or torch.are_deterministic_algorithms_enabled():
            at_once = self._prefers_many()
        else:
            at_once = self._is_faster(fast / len(chunk), chunk)
        if not at_once:
            return self._rest(chunk, reference)
        self.way = _AT_ONCE
        return values

    def _prefers_many(self) -> bool:
        """Where the bits of both ways are the same they cannot tell which one was taken: the sizes decide."""
        return self.chunk >= _MANY

    def _is_faster(self, fast: float, chunk: Sequence[int]) -> bool:
        """Seconds a point, of which the first run of a kernel is not a fair sample."""
        slow = self._alone(chunk[:_SOME])
        return fast < slow or self._timed(_AT_ONCE, chunk)[0] / len(chunk) < slow

    def _alone(self, chunk: Sequence[int]) -> float:
        """Seconds of one point more, without what a pass takes whatever the number of its points."""
        one, every = (min(self._timed(_ONE_BY_ONE, part)[0] for _ in range(3)) for part in (chunk[:1], chunk))
        return max(0.0, every - one) / (len(chunk) - 1)

    def _rest(self, chunk: Sequence[int], done: Tensor) -> Tensor:
        """The chunk point by point, of which the first ones are there."""
        rest = chunk[len(done) :]
        return torch.cat([done, self.run(_ONE_BY_ONE, rest)]) if rest else done

    def _agree(self, values: Tensor, reference: Tensor) -> bool:
        usual = reference.isfinite()
        if not torch.equal(usual, values.isfinite()):
            return False
        error, size = (values - reference)[usual].abs(), reference[usual].abs().max() if bool(usual.any()) else 0.0
        return bool((error <= _ROUNDINGS * self.objective.rounding * size).all())

    def _timed(self, way: str, chunk: Sequence[int]) -> tuple[float, Tensor]:
        seconds, values = stopwatch(lambda: self.run(way, chunk), self.objective.device)
        return sum(self.objective.ranks.gathered(seconds)), values

    def run(self, way: str, chunk: Sequence[int]) -> Tensor:
        """`(len(chunk),)` float64 on the host."""
        self.evaluations += len(chunk)
        if self.statistics == "recompute":
            return torch.stack([self._with_its_own(p) for p in chunk])
        inner = self._at_once if way == _AT_ONCE else self._one_by_one
        sums, _, weight = self.objective.summed(functools.partial(inner, chunk), lambda: self._sums(chunk))
        total, weights = sums.double().cpu()
        self.objective.normalise(total, weight)
        return total if self.objective.criterion.reduction == "sum" else total / weights

    def _with_its_own(self, p: int) -> Tensor:
        """A point whose running statistics are of one pass at it."""
        f = self.objective
        with f.at(self.points.rows([p])[0]), running_on(f, recomputed(f)):
            return torch.tensor(f.value(), dtype=torch.float64)

    def _one_by_one(self, chunk: Sequence[int]) -> Sum:
        """As `value()` at each point, but the model is looked at once, and the data is passed over once."""
        f = self.objective
        sums, columns = self._sums(chunk), range(len(chunk))
        with f.measuring(derivative=False), torch.no_grad():
            for block in self.points.blocks(columns):
                rows = self.points.rows([chunk[i] for i in block])
                for batch in f.sweep():
                    for column, theta in zip(block, rows, strict=True):
                        with f.at(theta):
                            e = f.evaluate(batch)
                            if (weight := e.weight) or f.lockstep:
                                sums[0, column] += weight * accurate(e.loss())
                                sums[1, column] += weight
        return sums, 1.0, float(sums[1].max())

    def _at_once(self, chunk: Sequence[int]) -> Sum:
        f = self.objective
        sums = self._sums(chunk)
        with ExitStack() as stack:
            stack.enter_context(f.measuring(derivative=False))
            stack.enter_context(torch.no_grad())
            kinds = [p.dtype for p in f.leaves()]
            pieces = [t.to(k) for t, k in zip(f.split(self.points.rows(chunk)), kinds, strict=True)]
            for batch in f.sweep():
                if batch.index not in self._weights:
                    self._weights[batch.index] = f.evaluate(batch).weight
                if weight := self._weights[batch.index]:
                    losses = torch.func.vmap(
                        lambda *one, batch=batch: f.evaluate(batch, one).loss(), randomness="same"
                    )(*pieces)
                    sums[0] += weight * accurate(losses)
                    sums[1] += weight
        return sums, 1.0, float(sums[1].max())

    def _sums(self, chunk: Sequence[int]) -> Tensor:
        """Of losses and of weights."""
        return accurate(torch.zeros(2, len(chunk), device=self.objective.device))


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
