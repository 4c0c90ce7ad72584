"""What a probe is: something with a name, that says which fields it measures and measures them in a context.

A probe holds no state between measurements and draws random numbers only from the context's generator, which
is seeded from (seed of the trace, name of the probe, step): what it measures at a step does not depend on
what was measured before, on skips or on resuming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from probes.context import Context
from probes.session import Pairs
from probes.trace.layout import Field

# What only a training loop has, and how it is given.
_TRAINING = {
    "optimizer": "the optimizer of a training loop: pass Monitor(..., optimizer=solver)",
    "batch": "the batch of a training loop: call monitor(step, batch=batch)",
    "previous": "the parameters of an earlier step: call a monitor at every step of a training loop",
}


@runtime_checkable
class Probe(Protocol):
    """An instrument.

    Optional: `every` (a number of steps or a schedule), `settings()` (what tells apart two of the same name), `pairs`
    (the `Pairs` that it asks of `Context.eigenpairs`), and `expected(context)`, what a first measurement takes: how
    many {"value": forward passes, "gradient": gradients of the data, "hessian" or another kind: products,
    "eigenvalues": times what all eigenvalues of a matrix of 512 rows take}.

    Attributes:
        name: of the group of records in the trace.
        needs: what it cannot be measured without: of every objective {"loss", "gradient", "graph", "features",
            "parameters"}, of a training loop {"optimizer", "batch", "previous"}. A monitor without an optimizer refuses
            a probe that needs one when it is made, and one that needs a batch at the first call without.
    """

    @property
    def name(self) -> str:
        """Of the group of records in the trace."""

    @property
    def needs(self) -> frozenset[str]:
        """What it cannot be measured without."""

    def fields(self, context: Context) -> Mapping[str, Field]:
        """What `measure` returns. Raises `ValueError` when it cannot be measured on this objective."""

    def measure(self, context: Context) -> Mapping[str, Any]:
        """A value for each of the fields, by its name."""


def check_needs(probes: Iterable[Probe], missing: Sequence[str]) -> None:
    """Raise `ValueError` for the first probe that needs something of a training loop which is missing."""
    for probe in probes:
        for need in missing:
            if need in probe.needs:
                raise ValueError(f"the probe {probe.name!r} needs {_TRAINING[need]}")


def searches_of(probes: Iterable[Probe]) -> dict[Any, Pairs]:
    """The searches that serve these probes together, by `Pairs.key`."""
    searches: dict[Any, Pairs] = {}
    for probe in probes:
        pairs = getattr(probe, "pairs", None)
        if pairs is not None:
            searches[pairs.key] = searches.get(pairs.key, pairs).union(pairs)
    return searches


def parts_of(probes: Iterable[Probe]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The sets of named parameters that two or more of these probes look at, by their operator, if none overlap.

    The Fisher matrix has labels of its own in each measurement, so that nothing of it is shared.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    for probe in probes:
        operator, names = getattr(probe, "operator", None), getattr(probe, "parameters", None)
        if operator and names and operator != "fisher" and tuple(names) not in found.setdefault(operator, []):
            found[operator].append(tuple(names))
    apart = {kind: [name for names in parts for name in names] for kind, parts in found.items()}
    return {
        kind: tuple(parts)
        for kind, parts in found.items()
        if len(parts) > 1 and len(set(apart[kind])) == len(apart[kind]) and not set("*?[") & set("".join(apart[kind]))
    }
