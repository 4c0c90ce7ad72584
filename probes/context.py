"""What a probe may use at one step of training: operators and searches that the probes of the step share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from landscape.objective.objective import Objective
    from landscape.operators.linear import LinearOperator
    from landscape.sharpness import GradientStatistics
    from landscape.spectra import Eigenpairs


Callback = Callable[[int, int | None, Any], bool | None]
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
    """

    operator: str = "hessian"
    parameters: tuple[str, ...] | None = None
    which: str = "LA"
    k: int = 1
    tol: float = 1e-3
    warm: bool = True
    confirm: bool = True

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
        )


@dataclass(frozen=True)
class Previous:
    """The parameters `(n,)` as they stood at an earlier call of the monitor."""

    step: int
    theta: torch.Tensor = field(repr=False)


@dataclass(frozen=True)
class Context:
    """All that a measurement may use.

    Attributes:
        objective: the loss as a function of the parameters, which it finds as they stand now.
        step, epoch, loss, batch, optimizer: of the training run, None where they were not given.
        generator: a CPU generator of this measurement's own; None while fields are declared.
        callback: for the algorithms: progress, and a way to stop.
        previous: the parameters at an earlier call, for probes that need "previous"; None where there is none.
        seed: of the trace, from which the generators of shared work derive.
        name: of the probe that is measured.
        operators: made before, kept by the monitor from step to step; use `operator`.
        requests: the searches for eigenpairs of all probes that are due; use `eigenpairs`.
        shared: what probes of this step have made for each other; use `once`.
        memories: what is kept between steps, only to go faster; use `memory`.
        kept: closes at the end of the step; until then operators keep their graphs for the next probe.
    """

    objective: Objective
    step: int = 0
    epoch: float | None = None
    loss: float | None = None
    batch: Any = field(default=None, repr=False)
    optimizer: torch.optim.Optimizer | None = field(default=None, repr=False)
    generator: torch.Generator | None = field(default=None, repr=False)
    callback: Callback | None = field(default=None, repr=False)
    previous: Previous | None = field(default=None, repr=False)
    seed: int = 0
    name: str = ""
    operators: dict[Any, LinearOperator] = field(default_factory=dict, repr=False)
    requests: Mapping[Any, Pairs] = field(default_factory=dict, repr=False)
    shared: dict[Any, Any] = field(default_factory=dict, repr=False)
    memories: dict[Any, dict[str, Any]] = field(default_factory=dict, repr=False)
    kept: ExitStack | None = field(default=None, repr=False)

    @property
    def memory(self) -> dict[str, Any]:
        """What this probe keeps between measurements, only to go faster: it may be empty at any time."""
        return self.memories.setdefault(self.name, {})

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """`compute()`, made by the first probe of a step that asks for `key`, and shared by all."""
        if key not in self.shared:
            self.shared[key] = compute()
        return self.shared[key]

    def on_batch(self) -> Objective | None:
        """The objective on the training loop's current batch; None when the monitor was not given one."""
        return None if self.batch is None else self.once("on_batch", lambda: self.objective.on(self.batch))

    def gradients(self) -> GradientStatistics:
        """Loss, gradient and gradient noise of the whole objective, from one pass for all probes of the step."""
        from landscape.sharpness import gradient_statistics

        return self.once("gradients", lambda: gradient_statistics(self.objective))

    def eigenpairs(self, pairs: Pairs) -> Eigenpairs:
        """The first `pairs.k` of a search that serves all probes of the step which declared theirs as `pairs`."""
        wanted = self.requests.get(pairs.key, pairs).union(pairs)
        found: Eigenpairs = self.once(wanted, lambda: self._search(wanted))
        return found.first(pairs.k)

    def _search(self, wanted: Pairs) -> Eigenpairs:
        import torch

        from landscape import spectra

        kept = self.memories.setdefault(wanted.key, {})
        A = self.operator(wanted.operator, wanted.parameters)
        start = kept.get("vectors") if wanted.warm else None
        name = "/".join(str(part) for part in wanted.key)
        generator = torch.Generator().manual_seed(measurement_seed(self.seed, name, self.step))
        found = spectra.eigsh(
            A,
            wanted.k,
            which=wanted.which,
            tol=wanted.tol,
            v0=start,
            confirm=wanted.confirm,
            generator=generator,
            callback=self.callback,
        )
        if wanted.warm and bool(torch.isfinite(found.values).all()):
            kept["vectors"] = found.vectors.cpu()  # training may need the device's memory
        return found

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
        A, kept = self.operators[key], self.kept
        if kept is not None and hasattr(A, "keeping"):
            self.once(("keeping", key), lambda: kept.enter_context(A.keeping()))
        return A

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


def measurement_seed(seed: int, name: str, step: int) -> int:
    """The seed of the measurement of probe `name` at `step` in a trace with this seed; in [0, 2**63)."""
    digest = hashlib.blake2b(f"{seed}/{name}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
