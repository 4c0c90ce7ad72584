"""What a problem costs: seconds of a gradient and of each kind of product, memory, and what each probe will take."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from probes.context import Context
from probes.doctor.finding import Finding, finding
from probes.errors import one_line
from probes.instruments.registry import PROBES
from probes.monitor.costs import UnitCosts
from probes.numbers import duration, short, storage
from probes.probe import check_needs
from probes.session import OPERATORS

if TYPE_CHECKING:
    from landscape import Objective

_LONG = 3.0  # seconds: what takes so long is run once, and a gradient on one batch instead of all
_LOOP = ("optimizer", "batch", "previous")  # what only a training loop has


class NotPossible(RuntimeError):
    """A product that was tried before, and failed."""


@dataclass
class Costs:
    """Seconds and bytes of one problem, each found when it is first asked for.

    Attributes:
        whole: the objective on all of its data.
        seconds: of one "value", "gradient", or product of a kind, on all data.
        impossible: kinds of products that failed.
    """

    whole: Objective
    seconds: dict[str, float] = field(default_factory=dict)
    impossible: set[str] = field(default_factory=set)

    @cached_property
    def batches(self) -> int:
        """How many batches the data has."""
        return sum(1 for _ in self.whole.sweep(skip=lambda index: True))

    @cached_property
    def timed(self) -> tuple[Objective, int]:
        """What is timed, and how often it fits into all data: one batch where all of them take long."""
        one = self.whole.sample(1 << 62)
        if self.batches > 1 and self.batches * _once(one.gradient, one) > _LONG:
            return one, self.batches
        return self.whole, 1

    @cached_property
    def context(self) -> Context:
        """For the probes and the operators: of the objective that is timed."""
        import torch

        return Context(self.timed[0], generator=torch.Generator().manual_seed(0))

    def time(self, unit: str) -> float:
        """Seconds on all data of a "value", a "gradient" or a product of that kind: the median of a few."""
        if unit in self.impossible:
            raise NotPossible(f"there is no {unit} product here, see above")
        if unit not in self.seconds:
            objective, times = self.timed
            run: Callable[[], Any]
            if unit in OPERATORS:
                A = self.context.operator(unit)
                v = A.random(1, "normal", self.context.generator)[:, 0]
                run = lambda: A @ v  # noqa: E731
            else:
                run = getattr(objective, unit)
            self.seconds[unit] = times * _median(run, objective)
            if unit in OPERATORS:
                A.release()
                if times > 1 and self.kept < self.batches:
                    self.seconds[unit] += self.time("gradient")
        return self.seconds[unit]

    @cached_property
    def graph(self) -> int:
        """Bytes that the graph of a Hessian product of the first batch keeps; of a gradient where there is none."""
        from landscape.operators.autograd import gradient_graph, graph_bytes

        with self.whole.measuring():
            loss = next(self.whole.evaluations()).loss()
            if "hessian" in self.impossible:
                return graph_bytes([loss])
            return graph_bytes(g for g in gradient_graph(loss, self.whole.leaves()) if g is not None)

    @property
    def budget(self) -> int:
        """Bytes that an operator may use."""
        from landscape.memory import budget

        return budget(self.whole.memory, self.whole.device)

    @property
    def kept(self) -> int:
        """Of how many batches the graphs fit the budget together; the others are made anew for each product."""
        return int(min(self.batches, self.budget // max(1, self.graph)))


def examine_costs(objective: Objective) -> Iterator[Finding]:
    """Cost of a gradient and of products, memory, and an estimate for each probe."""
    costs = Costs(objective.alone())
    yield finding("gradient", lambda: _gradient(costs))
    for kind in OPERATORS:
        yield finding(f"product {kind}", lambda kind=kind: _product(costs, kind))  # type: ignore[misc]
    yield finding("memory", lambda: _memory(costs))
    yield Finding("probes", "an estimate of a first measurement by the default settings: time and memory")
    for name in PROBES:
        yield finding(f"probe {name}", lambda name=name: _probe(costs, name))  # type: ignore[misc]


def _gradient(costs: Costs) -> Finding:
    seconds = costs.time("gradient")
    batches = f"{costs.batches} batches" if costs.batches > 1 else "one batch"
    timed = f", timed on the first of {batches}" if costs.timed[1] > 1 else f", {batches}"
    return Finding("gradient", f"{duration(seconds)} on all data{timed}", "", {"seconds": seconds})


def _product(costs: Costs, kind: str) -> Finding:
    what = f"product {kind}"
    try:
        seconds = costs.time(kind)
    except Exception as error:  # whatever the model raises: the self-check has said it
        costs.impossible.add(kind)
        return Finding(what, f"not possible: {_short(error)}", "note")
    gradients = seconds / costs.time("gradient")
    text = f"{duration(seconds)}, {short(gradients, 2)} × a gradient, once the graph is made"
    return Finding(what, text, "", {"seconds": seconds, "gradients": gradients})


def _memory(costs: Costs) -> Finding:
    free, graph, kept = costs.budget, costs.graph, costs.kept
    values = {"graph_bytes": graph, "batches": costs.batches, "budget_bytes": free, "kept": kept}
    of = f"each of {costs.batches} batches" if costs.batches > 1 else "the batch"
    text = f"the graph of a product takes {storage(graph)} for {of}, the budget is {storage(free)}"
    if graph > free:
        return Finding("memory", f"{text}; one graph is more than that: use smaller batches", "FAIL", values)
    if kept < costs.batches:
        text += f"; the graphs of {kept} are kept, the others are made anew for each product"
        return Finding("memory", text, "note", values)
    return Finding("memory", text, "ok", values)


def _probe(costs: Costs, name: str) -> Finding:
    """An estimate of its first measurement with the default settings."""
    what = f"probe {name}"
    try:
        probe = PROBES[name].load()()
        check_needs([probe], _LOOP)
        probe.fields(costs.context)
    except (ValueError, TypeError) as error:
        loop = "needs" in str(error) and any(need in getattr(probe, "needs", ()) for need in _LOOP)
        return Finding(what, "in a training loop only" if loop else f"not here: {one_line(error, limit=200)}")
    try:
        wanted = probe.expected(costs.context)
        for unit in wanted:
            if unit != "eigenvalues":
                costs.time(unit)
        seconds = UnitCosts(costs.seconds).estimate(probe, costs.context) or 0.0
        seconds += costs.time("gradient") * any(unit in OPERATORS for unit in wanted)  # the graphs are made once
    except Exception as error:
        return Finding(what, f"not possible: {_short(error)}", "note")
    graphs = costs.graph * (max(1, costs.kept) if any(unit in OPERATORS for unit in wanted) else 1)
    room = graphs + _vectors(name, costs)
    return Finding(what, f"about {duration(seconds)}, {storage(room)}", "", {"seconds": seconds, "bytes": room})


def _vectors(name: str, costs: Costs) -> int:
    """Bytes of the vectors that a probe keeps beside graphs, by the defaults of its algorithm; at most the budget."""
    from landscape.spectra.condition import DENSE_LIMIT, LANCZOS_STEPS

    objective = costs.whole
    n, size = objective.size, objective.dtype.itemsize
    columns = {"spectrum": 1.6 * 128, "alignment": 1.6 * 128, "sharpness": 1.6 * 128, "trace": 3 * 120, "density": 384}
    bytes_needed = int(size * n * min(columns.get(name, 4), 4 * n))
    if name == "condition":
        bytes_needed = 3 * 8 * n * n if n <= DENSE_LIMIT else int(1.5 * LANCZOS_STEPS * n * size)
    if name == "gauss-newton":
        from landscape.operators.tangent_kernel import TangentKernel

        bytes_needed = 3 * 8 * min(n, TangentKernel(objective).shape[0]) ** 2
    return min(bytes_needed, costs.budget)


def _short(error: Exception) -> str:
    """The first part of a text that goes on with advice."""
    return one_line(str(error).partition(" -- ")[0].partition(";")[0] or error, limit=160)


def _once(run: Callable[[], Any], objective: Objective) -> float:
    from landscape.clock import stopwatch

    return stopwatch(run, objective.device)[0]


def _median(run: Callable[[], Any], objective: Objective) -> float:
    """Seconds of a run: the median of five after one that warms up, or the one where it takes long."""
    first = _once(run, objective)
    return first if first > _LONG else statistics.median(_once(run, objective) for _ in range(5))
