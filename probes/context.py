"""What a probe may use at one step of training: what the loop knows, and what the probes of the step share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from probes.seeds import derive_seed
from probes.session import Pairs, Session, Step, build_operator
from probes.trace.unfinished import Unfinished

if TYPE_CHECKING:
    import torch

    from landscape import BlockDiagonal
    from landscape.objective.objective import Objective
    from landscape.operators.linear import LinearOperator
    from landscape.sharpness import GradientStatistics
    from landscape.spectra import Callback, Eigenpairs
    from probes.trace.trace import Trace

Operator = TypeVar("Operator", bound="LinearOperator")


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
        trace: that the row goes into, on the rank that writes; use `unfinished`.
        session: what lasts from step to step; use `operator` and `memory`.
        shared: what the probes of this step make for each other; use `once`, `eigenpairs` and `gradients`.
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
    trace: Trace | None = field(default=None, repr=False)
    session: Session = field(default_factory=Session, repr=False)
    shared: Step = field(default_factory=Step, repr=False)

    @property
    def memory(self) -> dict[str, Any]:
        """What this probe keeps between measurements, only to go faster: it may be empty at any time."""
        return self.session.memories[self.name]

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """`compute()`, made by the first probe of a step that asks for `key`, and shared by all."""
        if key not in self.shared.made:
            self.shared.made[key] = compute()
        return self.shared.made[key]

    def unfinished(self, part: str, of: str, size: int) -> Unfinished:
        """What an interrupted measurement of the same thing has found, and where this one keeps what it finds.

        `part` is the name of the result of `size` numbers, `of` a hash of what decides on them. Collective.
        """
        found = Unfinished(self.trace, self.name, self.step, part, of, size)
        found.values = self.objective.ranks.shared(found.values, 0)
        return found

    def on_batch(self) -> Objective | None:
        """The objective on the training loop's current batch; None when the monitor was not given one."""
        return None if self.batch is None else self.once("on_batch", lambda: self.objective.on(self.batch))

    def gradients(self) -> GradientStatistics:
        """Loss, gradient and gradient noise of the whole objective, from one pass for all probes of the step."""
        from landscape.sharpness import gradient_statistics

        return self.once("gradients", lambda: gradient_statistics(self.objective))

    def operator(self, kind: str = "hessian", parameters: Iterable[str] | None = None) -> LinearOperator:
        """The curvature matrix of that kind, restricted to the named parameters (names or globs).

        An operator follows the parameters of the model, so one serves all steps. Only the Fisher matrix is
        made anew: its labels are this measurement's draw. Raises `ValueError` for an unknown kind.
        """
        names = None if parameters is None else tuple(parameters)
        parts = self.shared.parts.get(kind, ())
        if names in parts and not self.objective.sharded:
            # layers that several probes of the step look at: on the graphs of one pass
            whole = [name for part in parts for name in part]
            by = {"/".join(part): part for part in parts}
            return self._block_diagonal(kind, whole, (parts,), by).blocks["/".join(names)]
        return self._lasting(kind, (names,), lambda: self._built(kind, names))

    def blocks(
        self, kind: str, parameters: Iterable[str] | None, by: Literal["layer", "parameter"] | int, heads: Any = None
    ) -> BlockDiagonal:
        """The block diagonal part of `operator(kind, parameters)`, as `landscape.BlockDiagonal`."""
        names = None if parameters is None else tuple(parameters)
        return self._block_diagonal(kind, names, (names, by, heads), by, heads)

    def _block_diagonal(
        self, kind: str, names: Iterable[str] | None, key: tuple[Any, ...], by: Any, heads: Any = None
    ) -> BlockDiagonal:
        from landscape import BlockDiagonal

        return self._lasting(kind, key, lambda: BlockDiagonal(self._built(kind, names), by, heads))

    def _built(self, kind: str, names: Iterable[str] | None) -> LinearOperator:
        A = build_operator(self.objective, kind, self.generator)
        return A if names is None else A.restrict(names)

    def _lasting(self, kind: str, of: tuple[Any, ...], build: Callable[[], Operator]) -> Operator:
        """The operator of an earlier step if there is one; it keeps its graphs until this step ends."""
        key, kept, graphs = (id(self.objective), kind, *of), self.session.operators, self.shared.graphs
        A = cast("Operator | None", kept.get(key)) or build()
        if kind != "fisher":
            kept[key] = A
            if graphs is not None and hasattr(A, "keeping"):
                self.once(("keeping", id(A)), lambda: graphs.enter_context(A.keeping()))
        return A

    def eigenpairs(self, pairs: Pairs) -> Eigenpairs:
        """The first `pairs.k` of a search that serves all probes of the step which declared theirs as `pairs`."""
        wanted = self.shared.searches.get(pairs.key, pairs).union(pairs)
        found: Eigenpairs = self.once(wanted, lambda: self._search(wanted))
        return found.first(pairs.k)

    def _search(self, wanted: Pairs) -> Eigenpairs:
        import torch

        from landscape import spectra

        memory = self.session.memories[wanted.key]
        found = spectra.eigsh(
            self.operator(wanted.operator, wanted.parameters),
            wanted.k,
            which=wanted.which,
            tol=wanted.tol,
            v0=memory.get("vectors") if wanted.warm else None,
            confirm=wanted.confirm,
            basis=wanted.basis,
            generator=torch.Generator().manual_seed(derive_seed(self.seed, *wanted.key, self.step)),
            callback=self.callback,
        )
        if wanted.warm and bool(torch.isfinite(found.values).all()):
            memory["vectors"] = found.vectors.cpu()  # training may need the device's memory
        return found
