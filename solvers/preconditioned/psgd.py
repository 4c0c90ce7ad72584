"""PSGD: gradients in a Kronecker-factored metric that is fit on the way (arXiv 1512.04202, 1809.10232, 2402.11858).

    m <- momentum m + (1 - momentum) g                                             m' = m / (1 - momentum^t)
    theta <- (1 - lr weight_decay) theta - lr clip(P m')          clip: no larger root mean square than `clip`

P = Q^T Q with a factor of Q for each side of a parameter, diagonal where the side is long. It is fit to pairs (v, h),
one step of the factors each (see `solvers.preconditioned.psgd_factors`), before it is used:

    "whitening"   h = g, or m' with fit="momentum"; v normal, integrated out     P near (E[g g^T])^(-1/2)
    "newton"      h = H v of normal v, one product with the Hessian              P near |H|^(-1), the Newton step's

as near as products of sides can be, with the Hessian's blocks between parameters left out.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.autograd import gradient_graph, vjp
from solvers.base import Closure, Parameters, check
from solvers.distributed import agreed
from solvers.first_order.base import NOT_YET, Update, buffers, square_norm
from solvers.preconditioned.base import Curved, Preconditioned, widened
from solvers.preconditioned.hutchinson import draw
from solvers.preconditioned.psgd_factors import Form, fit_factors, identities, preconditioned


class PSGD(Curved):
    """PSGD; see the module for the update.

    `step(closure)`, or for "whitening" `loss.backward(); step()` too.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0: of "whitening" about that of Adam, since steps have a root mean square of about 1; of
            "newton" up to 1, Newton's own.
        variant: "whitening" or "newton".
        momentum: in [0, 1).
        fit: what whitening fits, "gradient" or "momentum".
        rate: mu, the step size of the factors, in (0, 1).
        damping: >= 0, what is added to H, or its square to E[g g^T].
        scale: of Q = scale I at first, > 0; None takes it from the first pair.
        clip: the largest root mean square of a parameter's step over lr, > 0; None for no clip.
        weight_decay: >= 0, decoupled.
        form: of the factors, "triangular" or "dense".
        limit: the longest side whose factor is a matrix, >= 0.
        every: steps from one fit to the next, >= 1.
        probability: that a step in which a fit is due makes it, in (0, 1].
        generator: for v and that; its state is part of `state_dict`. None: a fresh seed.

    Raises:
        ValueError: settings that are not possible; at a step of "newton" no closure. Nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import PSGD
        >>> W = torch.tensor([[3.0, 1.0], [-1.0, 2.0]], requires_grad=True)
        >>> scales = torch.tensor([[1.0], [50.0]])  # curvatures of its rows
        >>> rng = torch.Generator().manual_seed(0)
        >>> solver = PSGD([W], lr=0.5, variant="newton", momentum=0.0, generator=rng)
        >>> losses = [float(solver.step(lambda: (scales * W.square()).sum())) for _ in range(150)]
        >>> losses[0], losses[-1] < 1e-4
        (260.0, True)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        variant: Literal["whitening", "newton"] = "whitening",
        momentum: float = 0.9,
        fit: Literal["gradient", "momentum"] = "gradient",
        rate: float = 0.1,
        damping: float = 1e-9,
        scale: float | None = None,
        clip: float | None = 1.0,
        weight_decay: float = 0.0,
        form: Form = "triangular",
        limit: int = 1024,
        every: int = 1,
        probability: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check(variant=(variant, variant in ("whitening", "newton")), probability=(probability, 0 < probability <= 1))
        settings = check(
            lr=(lr, lr >= 0),
            momentum=(momentum, 0 <= momentum < 1),
            fit=(fit, fit in ("gradient", "momentum")),
            rate=(rate, 0 < rate < 1),
            damping=(damping, damping >= 0),
            scale=(scale, scale is None or scale > 0),
            clip=(clip, clip is None or clip > 0),
            weight_decay=(weight_decay, weight_decay >= 0),
            form=(form, form in ("triangular", "dense")),
            limit=(limit, limit >= 0),
        )
        super().__init__(params, settings, every=every, generator=generator)
        self.variant, self.probability = variant, probability
        self._vectors: dict[int, Tensor] = {}  # this step's v, by their parameter's state
        self._fits = False  # whether this step fits whitening factors

    @override
    def step(self, closure: Closure | None = None, *, loss: Tensor | float | None = None) -> Any:  # type: ignore[override]
        """One step; the loss at the point where it began. Raises `ValueError`, see the class."""
        if self.variant == "whitening":
            return Preconditioned.step(self, closure, loss=loss)
        return super().step(closure, loss=loss)

    @override
    def evaluate(self, closure: Closure) -> tuple[Any, dict[Tensor, Tensor]]:
        """As of the base class; second derivatives for "newton" alone."""
        return super().evaluate(closure) if self.variant == "newton" else Preconditioned.evaluate(self, closure)

    @override
    def _due(self) -> bool:
        if not super()._due() or self.probability == 1.0:
            return super()._due()
        source = self.generator.device
        drawn = agreed([torch.rand((1,), generator=self.generator, device=source, dtype=torch.float64)])
        return float(drawn[0]) < self.probability

    @override
    def _estimate(self, loss: Tensor, leaves: list[Tensor], trusted: bool) -> tuple[list[Tensor | None], list[Tensor]]:
        """H v, whose v is one and the same in all processes."""
        gradient = gradient_graph(loss, leaves, trusted=trusted)
        vectors = agreed(draw(leaves, "normal", self.generator))
        self._vectors = {id(self.state[p]): widened(v) for p, v in zip(leaves, vectors, strict=True)}
        return list(gradient), [widened(h) for h in vjp(gradient, leaves, vectors, keep=False)]

    @override
    def _absorb(self, update: Update, estimates: list[Tensor]) -> None:
        for h, state in zip(estimates, update.states, strict=True):
            if h.numel():
                self._fit(update.group, state, h, self._vectors[id(state)])

    @override
    def _move_groups(self, updates: list[Update]) -> None:
        size = square_norm(gradients) if (gradients := [g for update in updates for g in update.gradients]) else 0.0
        if not math.isfinite(size):
            raise ValueError(f"the norm of the gradient is {math.sqrt(size)}: nothing was moved")
        if self.variant == "newton":
            super()._move_groups(updates)
            self._vectors = {}
            return
        self._fits = self._due()
        Preconditioned._move_groups(self, updates)

    @override
    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        lr, momentum = float(group["lr"]), group["momentum"]
        means = gradients
        if momentum:
            torch._foreach_lerp_(means := buffers(states, parameters, "mean"), gradients, 1.0 - momentum)
            for state in states:
                state["step"] = state.get("step", 0) + 1
            means = list(torch._foreach_div(means, [1.0 - momentum ** state["step"] for state in states]))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        for p, g, m, state in zip(parameters, gradients, means, states, strict=True):
            if not p.numel():
                continue
            if self.variant == "whitening" and (self._fits or "factors" not in state):
                self._fit(group, state, m if group["fit"] == "momentum" else g, None)
            d = self._preconditioned_one(group, m, state)
            if group["clip"] is not None:
                size = torch.linalg.vector_norm(d) / d.numel() ** 0.5
                d = d * (group["clip"] / size.clamp_min(group["clip"]))
            p.sub_(d, alpha=lr)

    @override
    def _preconditioned_one(self, group: Any, v: Tensor, state: dict[str, Any]) -> Tensor:
        if "factors" not in state:
            raise ValueError(NOT_YET)
        return preconditioned(_sided(v), [Q.to(v) for Q in state["factors"]]).view_as(v)

    def _fit(self, group: Any, state: dict[str, Any], h: Tensor, v: Tensor | None) -> None:
        """One step of the factors, which are made at the first pair."""
        h, v = _sided(h), None if v is None else _sided(v)
        if "factors" not in state:
            scale = _scale(h, v) if group["scale"] is None else group["scale"]
            state.update(identities(h, scale, group["limit"]))
        state["factors"] = [Q.to(h) for Q in state["factors"]]
        fit_factors(state, h, v, rate=group["rate"], damping=group["damping"], form=group["form"])


def _sided(G: Tensor) -> Tensor:
    """With a dimension at least."""
    return G.reshape(1) if G.ndim == 0 else G


def _scale(h: Tensor, v: Tensor | None) -> float:
    """The authors' first guess: of the sizes of entries, small for heavy tails; 1 for h = 0."""
    fourth = float(h.double().pow(4).mean())
    second = float(v.double().square().mean()) if v is not None else 1.0
    return second**0.25 * fourth**-0.125 if fourth > 0 else 1.0
