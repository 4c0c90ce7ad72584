"""K-FAC and EKFAC as optimizers: the gradient times the inverse of a Kronecker-factored curvature (arXiv 1503.05671).

    A <- beta A + (1 - beta) A_batch,  B <- beta B + (1 - beta) B_batch      every k steps, in each layer
    d = (K + damping I)^(-1) g,    K = B (x) A, or EKFAC's Q diag(S) Q^T in the eigenvectors of these factors
    v <- momentum v + (1 - momentum) nu d,        nu = min{ 1, sqrt(clip / (lr^2 d.g)) }
    theta <- (1 - lr weight_decay) theta - lr v

The means are divided by 1 - beta^t. d.g = d.(K + damping I) d is the step's square length in the model's metric: with
a clip a step changes the model's distribution by a KL divergence of about clip / 2 at most, which is why v is a mean.
Where layers have a step size and damping of their own, lr^2 d.g is summed over them: one nu shortens the whole step.
S is measured on the batch of the refresh, in the eigenvectors of the means (arXiv 1806.03884).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from landscape.objective.objective import Objective
from landscape.operators.kronecker.blocks import Product
from landscape.operators.kronecker.factored import Factored
from landscape.operators.kronecker.inverse import Method
from landscape.operators.kronecker.measured import Curvature, StoredOperator
from landscape.operators.kronecker.sides import Side
from landscape.operators.kronecker.state import State, from_arrays, to_arrays
from landscape.randomness import fresh_generator
from solvers.base import Closure, check
from solvers.first_order.base import NOT_YET, Update
from solvers.preconditioned.base import Preconditioned
from solvers.preconditioned.factor_means import KINDS, Means, Running

_OWN = ("lr", "damping", "momentum", "weight_decay")  # what a group may have of its own


class KFACDescent(Preconditioned):
    """Descent preconditioned by K-FAC or EKFAC; see the module for the update.

    `step(closure, batch=batch)`, or `loss.backward(); step(batch=batch)`: the batch `(inputs, targets)` of the step is
    what the factors are measured on where that is due; without one it is all of the objective's data. A measurement
    takes a forward pass and the reverse passes of `curvature`, and an eigendecomposition of each side in float64.

    Args:
        objective: whose parameters are moved; its loss and model are what the factors are of.
        lr: step size, >= 0.
        kind: "kfac" or "ekfac".
        damping: > 0.
        method: "exact", or for "kfac" "factored", the damping of each factor of the paper (section 6.3).
        curvature, share, limit: of `landscape.KFAC`.
        beta: of the running means of the factors, in [0, 1).
        momentum: in [0, 1).
        clip: of the step in the model's metric, > 0; None for no clip.
        weight_decay: >= 0, decoupled.
        every: steps from one measurement to the next, >= 1.
        groups: `lr`, `damping`, `momentum` or `weight_decay` of some parameters, by patterns of names that have none in
            common: `{"out.*": {"damping": 1e-2}}`. Parameters of one block of K have to have one damping.
        generator: for labels that are drawn; its state is part of `state_dict`. None: a fresh seed.

    Raises:
        TypeError: at the first step, for parameters that K-FAC has no rule for: see `landscape.KFAC`.
        ValueError: settings that are not possible, patterns that match nothing or overlap; at a step, a block that lies
            in groups of different damping, a gradient that is not finite. Nothing is moved then.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from solvers import KFACDescent
        >>> model = torch.nn.Linear(3, 1)
        >>> X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> f = Objective(model, torch.nn.MSELoss(), (X, X.sum(1, keepdim=True)))
        >>> settings = {"curvature": "gauss-newton", "momentum": 0.0, "clip": None, "damping": 1e-8}
        >>> solver = KFACDescent(f, lr=1.0, **settings)  # one layer and squared error: Gauss-Newton, which is exact
        >>> loss = solver.step(lambda: torch.nn.functional.mse_loss(model(X), X.sum(1, keepdim=True)))
        >>> f.value() < 1e-10
        True
    """

    takes_complex = False
    maximizes = False
    takes_objective = True  # in place of parameters

    def __init__(
        self,
        objective: Objective,
        lr: float = 0.1,
        *,
        kind: Literal["kfac", "ekfac"] = "kfac",
        damping: float = 1e-3,
        method: Method = "exact",
        curvature: Curvature = "fisher",
        share: Literal["expand", "reduce"] = "expand",
        limit: int = 8192,
        beta: float = 0.95,
        momentum: float = 0.9,
        clip: float | None = 1e-3,
        weight_decay: float = 0.0,
        every: int = 10,
        groups: Mapping[str, Mapping[str, float]] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check(
            kind=(kind, kind in KINDS),
            method=(method, method == "exact" or (method, kind) == ("factored", "kfac")),
            beta=(beta, 0 <= beta < 1),
            every=(every, every >= 1),
        )
        settings = {"lr": lr, "damping": damping, "momentum": momentum, "clip": clip, "weight_decay": weight_decay}
        super().__init__(_grouped(objective, groups or {}), _checked(settings))
        self.objective, self.kind, self.method, self.every = objective, kind, method, every
        self.curvature, self.share, self.limit = curvature, share, limit
        self.generator = generator or fresh_generator()
        self._operator(None)  # settings that it refuses are refused here
        self._means = Means(beta)
        self._used: Factored | None = None
        self._parts: dict[tuple[str, ...], Factored] = {}  # of those in use, by the parameters of one damping
        self._steps = 0
        self._batch: Any = None

    @override
    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if hasattr(self, "objective"):
            raise ValueError("KFACDescent moves the parameters of its objective: give groups of them as groups=")
        _checked(group)

    @override
    def step(  # type: ignore[override]
        self, closure: Closure | None = None, *, loss: Tensor | float | None = None, batch: Any = None
    ) -> Any:
        """One step; the loss at the point where it began: the closure's, or `loss` as it was given."""
        self._batch = batch
        try:
            return super().step(closure, loss=loss)
        finally:
            self._batch = None

    @override
    def _apply(self, loss: Tensor | float | None, updates: list[Update]) -> None:
        super()._apply(loss, updates)
        self._steps += 1

    @override
    def _move_groups(self, updates: list[Update]) -> None:
        if self._used is None or self._steps % self.every == 0:
            self._used, self._parts = self._measured(), {}
        place = self._places()
        gradients = {id(s): g for update in updates for s, g in zip(update.states, update.gradients, strict=True)}
        g = torch.zeros(self.objective.size, dtype=self.objective.dtype, device=self.objective.device)
        for state, one in gradients.items():
            g[place[state]] = one.reshape(-1).to(g)
        d = self._preconditioned(self._used, g)
        slopes = {state: float(torch.dot(d[place[state]].double(), g[place[state]].double())) for state in gradients}
        square = sum(float(u.group["lr"]) ** 2 * sum(slopes[id(s)] for s in u.states) for u in updates)
        if not all(map(math.isfinite, slopes.values())):
            raise ValueError("the gradient is not finite: nothing was moved")
        clip = self.param_groups[0]["clip"]
        nu = math.sqrt(clip / square) if clip is not None and square > clip else 1.0
        for update in updates:
            self._moved(update, [nu * d[place[id(state)]] for state in update.states])

    def _moved(self, update: Update, directions: list[Tensor]) -> None:
        group, parameters, _, states = update
        lr, steps = float(group["lr"]), []
        for p, state, d in zip(parameters, states, directions, strict=True):
            mean = state["mean"] = state["mean"].to(p) if "mean" in state else torch.zeros_like(p)
            steps.append(mean.lerp_(d.view_as(p).to(p), 1.0 - group["momentum"]))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, steps, alpha=-lr)

    def _places(self) -> dict[int, slice]:
        """Where each parameter lies in the flat vector, by its state."""
        slices = self.objective.slices.values()
        return {id(self.state[p]): place for p, place in zip(self.objective.leaves(), slices, strict=True)}

    def _preconditioned(self, used: Factored, g: Tensor) -> Tensor:
        """(K + damping I)^(-1) g, each block with the damping of its group."""
        names = {id(p): name for p, name in zip(self.objective.leaves(), self.objective.slices, strict=True)}
        dampings = {names[id(p)]: float(group["damping"]) for group in self.param_groups for p in group["params"]}
        d = torch.zeros_like(g)
        for damping in dict.fromkeys(dampings.values()):
            own = [name for name, other in dampings.items() if other == damping]
            blocks = [block for block in used.blocks if block.layer.names[0] in own]
            for block in blocks:
                if len({dampings[name] for name in block.layer.names}) > 1:
                    raise ValueError(f"{', '.join(block.layer.names)} are one block of K: give them one damping")
            part = used if len(own) == len(dampings) else replace(used, blocks=blocks)
            part = self._parts.setdefault(tuple(own), part)  # with the spectra that it has found
            found = StoredOperator(part).inverse(damping, self.method) @ g
            for name in own:
                d[self.objective.slices[name]] = found[self.objective.slices[name]]
        return d

    @override
    @torch.no_grad()
    def precondition(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        self._check_vectors(self.leaves(), vectors)
        if self._used is None:
            raise ValueError(NOT_YET)
        place = self._places()
        g = torch.zeros(self.objective.size, dtype=self.objective.dtype, device=self.objective.device)
        for p, v in zip(self.leaves(), vectors, strict=True):
            g[place[id(self.state[p])]] = v.reshape(-1).to(g)
        d = self._preconditioned(self._used, g)
        return [d[place[id(self.state[p])]].view_as(p) for p in self.leaves()]

    def _operator(self, batch: Any) -> Running:
        objective = self.objective if batch is None else self.objective.on(batch)
        return KINDS[self.kind](objective, self.curvature, self.share, limit=self.limit, generator=self.generator)

    def _measured(self) -> Factored:
        """The blocks of the means, this step's batch among them."""
        operator = self._operator(self._batch)
        operator.means = self._means
        return operator.factored()

    @override
    def state_dict(self) -> dict[str, Any]:
        """Of the base class, with the running means, the blocks in use and the generator's state."""
        means = None
        if self._used is not None:
            blocks = [Product(layer, Side(B), Side(A)) for layer, (B, A) in self._means.factors.items()]
            means = _tensors(to_arrays(replace(self._used, blocks=blocks)))
        own = {
            "kind": self.kind,
            "steps": self._steps,
            "generator": self.generator.get_state(),
            "count": self._means.count,
            "means": means,
            "used": None if self._used is None else _tensors(to_arrays(self._used)),
        }
        return {**super().state_dict(), "kfac": own}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit. Raises `ValueError` for the state of another solver or kind; nothing has changed then."""
        own = state_dict.get("kfac", {})
        if own.get("kind") != self.kind:
            raise ValueError(f"this is not the state of KFACDescent of kind {self.kind!r}")
        used, means = (self._blocks_of(own[key]) for key in ("used", "means"))
        super().load_state_dict(state_dict)
        self._parts = {}
        self._used, self._means.count, self._steps = used, own["count"], own["steps"]
        blocks: Iterable[Any] = () if means is None else means.blocks
        self._means.factors = {block.layer: (block.B.matrix, block.A.matrix) for block in blocks}
        self.generator.set_state(own["generator"].cpu())

    def _blocks_of(self, state: Mapping[str, Tensor] | None) -> Factored | None:
        arrays = {name: t.cpu().numpy() for name, t in (state or {}).items()}
        return from_arrays(arrays, self.objective.device) if arrays else None


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a group. Raises `ValueError` for the first that is not possible."""
    lr, damping, momentum, clip, weight_decay = (
        settings[k] for k in ("lr", "damping", "momentum", "clip", "weight_decay")
    )
    return check(
        lr=(lr, lr >= 0),
        damping=(damping, 0 < damping < math.inf),
        momentum=(momentum, 0 <= momentum < 1),
        clip=(clip, clip is None or clip > 0),
        weight_decay=(weight_decay, weight_decay >= 0),
    )


def _grouped(objective: Objective, groups: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The parameters that no pattern matches, and a group for each pattern."""
    leaves = dict(zip(objective.names, objective.leaves(), strict=True))
    found: list[dict[str, Any]] = []
    for pattern, settings in groups.items():
        unknown = [name for name in settings if name not in _OWN]
        if unknown:
            raise ValueError(f"groups={pattern!r}: a group has {', '.join(_OWN)} of its own, not {unknown[0]}")
        names = objective.restrict(pattern).names
        twice = [name for name in names if name not in leaves]
        if twice:
            raise ValueError(f"groups={pattern!r}: {twice[0]} is in two groups: make their patterns disjoint")
        found.append({"params": [leaves.pop(name) for name in names], **settings})
    return [*([{"params": [*leaves.values()]}] if leaves else []), *found]


def _tensors(arrays: State) -> dict[str, Tensor]:
    """Copies, which torch loads without being told to trust the file."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
