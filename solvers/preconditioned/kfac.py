"""K-FAC and EKFAC as optimizers: the gradient times the inverse of a Kronecker-factored curvature (arXiv 1503.05671).

    A <- beta A + (1 - beta) A_batch,  B <- beta B + (1 - beta) B_batch      every k steps, in each layer
    d = (K + damping I)^(-1) g,    K = B (x) A, or EKFAC's Q diag(S) Q^T in the eigenvectors of these factors
    v <- momentum v + (1 - momentum) nu d,        nu = min{ 1, sqrt(clip / (lr^2 d.g)) }
    theta <- (1 - lr weight_decay) theta - lr v

The means are divided by 1 - beta^t. d.g = d.(K + damping I) d is the step's square length in the model's metric: with
a clip a step changes the model's distribution by a KL divergence of about clip / 2 at most, which is why v is a mean.
S is measured on the batch of the refresh, in the eigenvectors of the means (arXiv 1806.03884).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from landscape.objective.objective import Objective
from landscape.operators.kronecker.blocks import Block, Product
from landscape.operators.kronecker.collected import Collected
from landscape.operators.kronecker.ekfac import EKFAC
from landscape.operators.kronecker.factored import Factored
from landscape.operators.kronecker.inverse import Method
from landscape.operators.kronecker.kfac import KFAC
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.measured import Curvature, MeasuredOperator, StoredOperator
from landscape.operators.kronecker.passes import Passes
from landscape.operators.kronecker.sides import Side
from landscape.operators.kronecker.state import State, from_arrays, to_arrays
from landscape.randomness import fresh_generator
from solvers.base import Closure, check
from solvers.first_order.base import Update
from solvers.preconditioned.base import Preconditioned


class Means:
    """Running means of the factors of each layer.

    Attributes:
        factors: beta-weighted sums of (B, A), not yet divided by their weights.
        count: how often they were added to.
    """

    def __init__(self, beta: float) -> None:
        self.beta, self.count = beta, 0
        self.factors: dict[Layer, tuple[Tensor, Tensor]] = {}

    def add(self, factors: Mapping[Layer, tuple[Tensor, Tensor]]) -> dict[Layer, tuple[Tensor, Tensor]]:
        """The means after these; a layer that is not among them counts as 0, one that is new as 0 until now."""
        self.count += 1
        kept = {layer: (self.beta * B, self.beta * A) for layer, (B, A) in self.factors.items()}
        for layer, (B, A) in factors.items():
            old = kept.get(layer, (0.0, 0.0))
            kept[layer] = old[0] + (1.0 - self.beta) * B, old[1] + (1.0 - self.beta) * A
        self.factors = kept
        weight = 1.0 - self.beta**self.count
        return {layer: (B / weight, A / weight) for layer, (B, A) in kept.items()}


class _Running(MeasuredOperator):
    """Blocks of the running means, which the factors of this measurement are added to."""

    means: Means

    @override
    def _blocks(self, passes: Passes, found: Collected) -> list[Block]:
        return super()._blocks(passes, replace(found, factors=self.means.add(found.factors)))


class _RunningKFAC(_Running, KFAC):
    pass


class _RunningEKFAC(_Running, EKFAC):
    pass


_KINDS: dict[str, type[_Running]] = {"kfac": _RunningKFAC, "ekfac": _RunningEKFAC}


class KFACDescent(Preconditioned):
    """Descent preconditioned by K-FAC or EKFAC; see the module for the update.

    `step(closure, batch=batch)`, or `loss.backward(); step(batch=batch)`: the batch `(inputs, targets)` of the step is
    what the factors are measured on where that is due; without one it is all of the objective's data. A measurement
    takes a forward pass and the reverse passes of `curvature`, and an eigendecomposition of each side in float64.

    Args:
        objective: whose parameters are moved, all of them in one group; its loss and model are what the factors are of.
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
        generator: for labels that are drawn; its state is part of `state_dict`. None: a fresh seed.

    Raises:
        TypeError: at the first step, for parameters that K-FAC has no rule for: see `landscape.KFAC`.
        ValueError: settings that are not possible; at a step, a gradient that is not finite. Nothing is moved then.

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
        generator: torch.Generator | None = None,
    ) -> None:
        check(
            kind=(kind, kind in _KINDS),
            method=(method, method == "exact" or (method, kind) == ("factored", "kfac")),
            beta=(beta, 0 <= beta < 1),
            every=(every, every >= 1),
        )
        settings = check(
            lr=(lr, lr >= 0),
            damping=(damping, 0 < damping < math.inf),
            momentum=(momentum, 0 <= momentum < 1),
            clip=(clip, clip is None or clip > 0),
            weight_decay=(weight_decay, weight_decay >= 0),
        )
        super().__init__(objective.leaves(), settings)
        self.objective, self.kind, self.method, self.every = objective, kind, method, every
        self.curvature, self.share, self.limit = curvature, share, limit
        self.generator = generator or fresh_generator()
        self._operator(None)  # settings that it refuses are refused here
        self._means = Means(beta)
        self._used: Factored | None = None
        self._steps = 0
        self._batch: Any = None

    @override
    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if len(self.param_groups) > 1:
            raise ValueError("KFACDescent moves the parameters of its objective in one group")

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
    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        if self._used is None or self._steps % self.every == 0:
            self._used = self._measured()
        objective, lr = self.objective, float(group["lr"])
        place = {id(self.state.get(p)): s for p, s in zip(objective.leaves(), objective.slices.values(), strict=True)}
        g = torch.zeros(objective.size, dtype=objective.dtype, device=objective.device)
        for state, one in zip(states, gradients, strict=True):
            g[place[id(state)]] = one.reshape(-1).to(g)
        d = StoredOperator(self._used).inverse(group["damping"], self.method) @ g
        slope = float(torch.dot(d.double(), g.double()))
        if not math.isfinite(slope):
            raise ValueError("the gradient is not finite: nothing was moved")
        nu = 1.0
        if group["clip"] is not None and lr**2 * slope > group["clip"]:
            nu = math.sqrt(group["clip"] / slope) / lr
        steps = []
        for p, state in zip(parameters, states, strict=True):
            mean = state["mean"] = state["mean"].to(p) if "mean" in state else torch.zeros_like(p)
            steps.append(mean.lerp_(nu * d[place[id(state)]].view_as(p).to(p), 1.0 - group["momentum"]))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, steps, alpha=-lr)

    def _operator(self, batch: Any) -> _Running:
        objective = self.objective if batch is None else self.objective.on(batch)
        return _KINDS[self.kind](objective, self.curvature, self.share, limit=self.limit, generator=self.generator)

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
        self._used, self._means.count, self._steps = used, own["count"], own["steps"]
        blocks: Iterable[Any] = () if means is None else means.blocks
        self._means.factors = {block.layer: (block.B.matrix, block.A.matrix) for block in blocks}
        self.generator.set_state(own["generator"].cpu())

    def _blocks_of(self, state: Mapping[str, Tensor] | None) -> Factored | None:
        arrays = {name: t.cpu().numpy() for name, t in (state or {}).items()}
        return from_arrays(arrays, self.objective.device) if arrays else None


def _tensors(arrays: State) -> dict[str, Tensor]:
    """Copies, which torch loads without being told to trust the file."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
