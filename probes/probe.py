"""What a probe is: something with a name, that says which fields it measures and measures them in a context.

A probe holds no state between measurements and draws random numbers only from the context's generator, which
is seeded from (seed of the trace, name of the probe, step): what it measures at a step does not depend on
what was measured before, on skips or on resuming.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from probes.trace_file import Field

if TYPE_CHECKING:
    import torch

    from landscape.objective import Objective
    from landscape.operators import LinearOperator

Callback = Callable[[int, int | None, Any], bool | None]

OPERATORS: dict[str, str] = {
    "hessian": "the Hessian of the loss",
    "gauss-newton": "the generalised Gauss-Newton matrix",
    "fisher": "the Fisher matrix, with labels drawn from the model (one draw per loss term)",
    "empirical-fisher": "the empirical Fisher matrix, with the data's labels",
}


@dataclass(frozen=True)
class Moment:
    """A point of the training run: what schedules decide on."""

    step: int
    epoch: float | None = None


class Schedule(Protocol):
    """Says when a probe is due. It holds no state, so a resumed run goes on with the same schedule."""

    def due(self, now: Moment, last: Moment | None) -> bool:
        """Whether to measure now; `last` is when it was due last, None at the start."""
        ...


@dataclass(frozen=True)
class Every:
    """Due at the steps that `steps` divides. Raises `ValueError` for steps < 1."""

    steps: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"every= is a number of steps >= 1 or a schedule, not {self.steps!r}")

    def due(self, now: Moment, last: Moment | None) -> bool:
        """Whether `steps` divides the step."""
        return now.step % self.steps == 0


def schedule_of(probe: Probe) -> Schedule:
    """The probe's `every`: a schedule, or a number of steps; every step when it has none."""
    every = getattr(probe, "every", 1)
    return every if hasattr(every, "due") else Every(every)


@dataclass(frozen=True)
class Context:
    """All that a measurement may use.

    Attributes:
        objective: the loss as a function of the parameters, which it finds as they stand now.
        step, epoch, loss, batch, optimizer: of the training run, None where they were not given.
        generator: a CPU generator of this measurement's own; None while fields are declared.
        callback: for the algorithms: progress, and a way to stop.
        operators: made before, kept by the monitor from step to step; use `operator`.
    """

    objective: Objective
    step: int = 0
    epoch: float | None = None
    loss: float | None = None
    batch: Any = field(default=None, repr=False)
    optimizer: torch.optim.Optimizer | None = field(default=None, repr=False)
    generator: torch.Generator | None = field(default=None, repr=False)
    callback: Callback | None = field(default=None, repr=False)
    operators: dict[Any, LinearOperator] = field(default_factory=dict, repr=False)

    def operator(self, kind: str = "hessian", parameters: Iterable[str] | None = None) -> LinearOperator:
        """The curvature matrix of that kind, restricted to the named parameters (names or globs).

        An operator follows the parameters of the model, so one serves all steps. Only the Fisher matrix is
        made anew: its labels are this measurement's draw. Raises `ValueError` for an unknown kind.
        """
        names = None if parameters is None else tuple(parameters)
        key = (id(self.objective), kind, names)
        if kind == "fisher":
            return self._make(kind, names)
        if key not in self.operators:
            self.operators[key] = self._make(kind, names)
        return self.operators[key]

    def _make(self, kind: str, names: tuple[str, ...] | None) -> LinearOperator:
        import landscape

        check_operator(kind)
        A: LinearOperator
        if kind == "hessian":
            A = landscape.Hessian(self.objective)
        elif kind == "gauss-newton":
            A = landscape.GaussNewton(self.objective)
        elif kind == "fisher":
            A = landscape.MonteCarloFisher(self.objective, generator=self.generator)
        else:
            A = landscape.EmpiricalFisher(self.objective)
        return A if names is None else A.restrict(names)


def check_operator(kind: str) -> None:
    """Raise `ValueError` for an unknown kind of operator."""
    if kind not in OPERATORS:
        raise ValueError(f"operator is one of {', '.join(OPERATORS)}, not {kind!r}")


@runtime_checkable
class Probe(Protocol):
    """An instrument. Two optional attributes: `every` (a number of steps or a schedule) and `settings()`.

    Attributes:
        name: of the group of records in the trace.
        needs: what it looks at, of {"loss", "gradient", "graph", "features", "parameters", "optimizer"}.
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


def measurement_seed(seed: int, name: str, step: int) -> int:
    """The seed of the measurement of probe `name` at `step` in a trace with this seed; in [0, 2**63)."""
    digest = hashlib.blake2b(f"{seed}/{name}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
