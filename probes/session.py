"""What probes share: for as long as a monitor lives, and within one step of training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from landscape.objective.objective import Objective
    from landscape.operators.linear import LinearOperator

Basis = Literal["auto", "device", "host", "disk"]

OPERATORS: dict[str, str] = {
    "hessian": "the Hessian of the loss",
    "gauss-newton": "the generalised Gauss-Newton matrix",
    "fisher": "the Fisher matrix, with labels drawn from the model (one draw per loss term)",
    "empirical-fisher": "the empirical Fisher matrix, with the data's labels",
}


@dataclass(frozen=True)
class Pairs:
    """The extreme eigenpairs that a probe looks at, so that probes of one step share one search.

    Attributes:
        operator, parameters: of which matrix, as in `Context.operator`.
        which, k, tol: as in `landscape.spectra.eigsh`.
        warm: start from the vectors that were found last; what comes back then depends on history, within `tol`.
        confirm: make sure that none was missed.
        basis: where the vectors lie meanwhile, which changes no number.
    """

    operator: str = "hessian"
    parameters: tuple[str, ...] | None = None
    which: str = "LA"
    k: int = 1
    tol: float = 1e-3
    warm: bool = True
    confirm: bool = True
    basis: Basis = "auto"

    @property
    def key(self) -> tuple[Any, ...]:
        """What must be equal for two searches to be one."""
        return ("eigenpairs", self.operator, self.parameters, self.which)

    @property
    def products(self) -> float:
        """About how many products a first search takes (seen: 21-34 for k = 6 at tol 1e-3 over six spectra)."""
        return (12.0 + 2.0 * self.k) * max(1.0, 1.0 + math.log10(1e-3 / self.tol) / 3.0)

    def union(self, other: Pairs) -> Pairs:
        """The search that serves both."""
        return replace(
            self,
            k=max(self.k, other.k),
            tol=min(self.tol, other.tol),
            warm=self.warm and other.warm,
            confirm=self.confirm or other.confirm,
            basis=other.basis if self.basis == "auto" else self.basis,
        )


@dataclass(frozen=True)
class Session:
    """What lasts from step to step, only to go faster: operators without graphs, and what probes remember."""

    operators: dict[Hashable, LinearOperator] = field(default_factory=dict)
    memories: defaultdict[Hashable, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))


@dataclass
class Step:
    """What the probes of one step make for each other.

    Attributes:
        graphs: closes at the end of the step; until then operators keep their graphs for the next probe.
        searches: for eigenpairs, those of all probes that are due, by `Pairs.key`.
        parts: sets of parameters that several of these probes look at, by the operator; no two have one in common.
        made: what was made so far.
    """

    graphs: ExitStack | None = None
    searches: Mapping[Hashable, Pairs] = field(default_factory=dict)
    parts: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    made: dict[Hashable, Any] = field(default_factory=dict)


def build_operator(objective: Objective, kind: str, generator: torch.Generator | None) -> LinearOperator:
    """The curvature matrix of that kind. Raises `ValueError` for an unknown one."""
    import landscape

    if kind not in OPERATORS:
        raise ValueError(f"operator is one of {', '.join(OPERATORS)}, not {kind!r}")
    if kind == "fisher":
        return landscape.MonteCarloFisher(objective, generator=generator)
    if kind == "empirical-fisher":
        return landscape.EmpiricalFisher(objective)
    return landscape.Hessian(objective) if kind == "hessian" else landscape.GaussNewton(objective)
