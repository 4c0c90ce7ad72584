"""Sophia: a running mean of gradients over one of the curvature's diagonal, clipped (arXiv 2305.14342, Algorithm 3).

    m <- beta1 m + (1 - beta1) g
    h <- beta2 h + (1 - beta2) h^                              at every k-th step
    theta <- (1 - lr weight_decay) theta - lr clip(m / max(gamma h, eps), 1)

h^ is u * (H u) of Gaussian u (Sophia-H, curvature="hessian"), or B g^ * g^ with g^ the gradient on labels drawn from
the model (Sophia-G, curvature="gauss-newton"; see `solvers.preconditioned.sampled_labels`), which is never negative.
Where h is not positive the step is that of the sign of m.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import Update, buffers
from solvers.preconditioned.base import Curved
from solvers.preconditioned.hutchinson import hutchinson
from solvers.preconditioned.sampled_labels import sampled_labels

GAMMA = {"hessian": 0.01, "gauss-newton": 0.05}  # of the paper's experiments


class Sophia(Curved):
    """Sophia; see the module for the update.

    Only `step(closure)`: the closure returns the loss with its graph. Sophia-G finds the model's probabilities in it:
    a cross-entropy of torch's own, with any labels, weights and ignored targets, alone or with other terms beside it;
    its estimate costs one more backward pass and no second derivative.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0: the most that an entry moves by.
        curvature: "hessian" or "gauss-newton".
        betas: of the two running means, in [0, 1).
        gamma: > 0; None is 0.01 for "hessian", 0.05 for "gauss-newton". To be set such that `clipped()` is 0.5 to 0.9.
        eps: > 0.
        weight_decay: >= 0, decoupled; the paper has 0.2.
        every: k, steps from one estimate to the next.
        probes: vectors u, or draws of all labels, of an estimate.
        generator: for them; its state is part of `state_dict`. None: a fresh seed.

    Raises:
        ValueError: settings that are not possible; at a step no closure, or for "gauss-newton" a loss that is no
            cross-entropy. Nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import Sophia
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = Sophia([x], lr=0.1)
        >>> loss = solver.step(lambda: x[0] ** 2 + 50 * x[1] ** 2)
        >>> [round(v, 2) for v in x.tolist()], solver.clipped()  # at first the running mean of h is small
        ([2.9, -1.9], 1.0)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        curvature: Literal["hessian", "gauss-newton"] = "hessian",
        betas: tuple[float, float] = (0.96, 0.99),
        gamma: float | None = None,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        every: int = 10,
        probes: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check(curvature=(curvature, curvature in GAMMA))
        gamma = GAMMA[curvature] if gamma is None else gamma
        settings = check(
            lr=(lr, lr >= 0),
            betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)),
            gamma=(gamma, gamma > 0),
            eps=(eps, eps > 0),
            weight_decay=(weight_decay, weight_decay >= 0),
        )
        super().__init__(params, settings, every=every, probes=probes, generator=generator)
        self.curvature = curvature

    @override
    def _estimate(self, loss: Tensor, leaves: list[Tensor], trusted: bool) -> tuple[list[Tensor | None], list[Tensor]]:
        if self.curvature == "gauss-newton":
            return sampled_labels(loss, leaves, self.probes, self.generator)
        return hutchinson(loss, leaves, self.probes, "normal", self.generator, trusted=trusted)

    @override
    def _absorb(self, update: Update, estimates: list[Tensor]) -> None:
        curvature = buffers(update.states, update.parameters, "curvature")
        torch._foreach_lerp_(curvature, estimates, 1.0 - update.group["betas"][1])

    @override
    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        lr, gamma = float(group["lr"]), group["gamma"]
        mean, curvature = buffers(states, parameters, "mean"), buffers(states, parameters, "curvature")
        torch._foreach_lerp_(mean, gradients, 1.0 - group["betas"][0])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        # gamma times the published step, which leaves out one pass over the memory
        steps = torch._foreach_clamp_min(curvature, group["eps"] / gamma)
        steps = torch._foreach_div(mean, steps)
        torch._foreach_clamp_min_(steps, -gamma)
        torch._foreach_clamp_max_(steps, gamma)
        torch._foreach_add_(parameters, steps, alpha=-lr / gamma)

    def clipped(self) -> float:
        """The share of entries in [0, 1] whose last step was clipped; nan before the first step."""
        cut, entries = 0, 0
        for group in self.param_groups:
            for state in (self.state[p] for p in group["params"] if "mean" in self.state.get(p, {})):
                bound = (group["gamma"] * state["curvature"]).clamp_min_(group["eps"])
                cut += int((state["mean"].abs() >= bound).sum())
                entries += bound.numel()
        return cut / entries if entries else float("nan")
