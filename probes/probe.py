"""What a probe is: something with a name, that says which fields it measures and measures them in a context.

A probe holds no state between measurements and draws random numbers only from the context's generator, which
is seeded from (seed of the trace, name of the probe, step): what it measures at a step does not depend on
what was measured before, on skips or on resuming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from probes.trace.layout import Field

if TYPE_CHECKING:
    pass
from typing import TYPE_CHECKING

from probes.context import Context, Pairs

if TYPE_CHECKING:
    pass


@runtime_checkable
class Probe(Protocol):
    """An instrument.

    Optional: `every` (a number of steps or a schedule), `settings()` (what tells apart two of the same name), `pairs`
    (the `Pairs` that it asks of `Context.eigenpairs`), and `expected(context)`, what a first measurement takes: how
    many {"value": forward passes, "gradient": gradients of the data, "hessian" or another kind: products,
    "eigenvalues": times what all eigenvalues of a matrix of 512 rows take}.

    Attributes:
        name: of the group of records in the trace.
        needs: what it looks at, of {"loss", "gradient", "graph", "features", "parameters", "optimizer", "batch",
            "previous"}.
    """

    @property
    def name(self) -> str:
        """Of the group of records in the trace."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What it looks at."""
        ...

    def fields(self, context: Context) -> Mapping[str, Field]:
        """What `measure` returns. Raises `ValueError` when it cannot be measured on this objective."""
        ...

    def measure(self, context: Context) -> Mapping[str, Any]:
        """One value per field."""
        ...


def settings_of(probe: Probe) -> dict[str, Any] | None:
    """What tells apart two probes of the same name: kept with the records."""
    settings = getattr(probe, "settings", None)
    return None if settings is None else dict(settings())


def pairs_of(probes: Iterable[Probe]) -> dict[Any, Pairs]:
    """The searches that serve these probes together, by `Pairs.key`."""
    searches: dict[Any, Pairs] = {}
    for probe in probes:
        pairs = getattr(probe, "pairs", None)
        if pairs is not None:
            searches[pairs.key] = searches[pairs.key].union(pairs) if pairs.key in searches else pairs
    return searches


class ProbeWarning(UserWarning):
    """A probe failed, or its result could not be written; the training goes on."""
