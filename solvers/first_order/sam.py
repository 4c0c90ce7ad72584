"""Sharpness-aware minimisation: a step with the gradient of a point uphill (arXiv 2010.01412; 2206.06232, 2301.08203).

    SAM     uphill  theta + rho g / ||g||          USAM    theta + rho g          DNSAM   theta + rho g / ||grad f||

g is the batch's gradient at theta, ||g|| its norm over all groups, grad f the gradient of the full-batch loss. The
parameters return to theta, and the step is made there with the same batch's gradient uphill: by SGD, or any optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from solvers.base import Closure, Parameters, Solver, check
from solvers.first_order.base import FirstOrder, LossFirstOrder, square_norm
from solvers.first_order.sgd import SGD

VARIANTS = ("sam", "usam", "dnsam")


class SAM(Solver):
    """SAM and its variants around any optimizer; see the module for the point uphill.

    Only `step(closure)`: the closure is called twice on one batch, so `loss.backward(); step()` and
    `torch.amp.GradScaler` cannot be used (bfloat16 autocast inside of the closure can). Both calls meet the same random
    numbers (dropout) and the same buffers, and both go on as after one call: running means are updated once; see
    `solvers.repeatable`. `solver.uphill` is True in the second one. The parameters come back from uphill bit by bit,
    also when the closure raises there, and `.grad` is as before. A closure may call `backward()` if it clears `.grad`
    first, as Lightning's does. With several processes gradients are averaged before each use.

    Groups may have their own `rho`. `base`'s settings are in `param_groups`, where schedulers find them, and its state
    is the `state_dict`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size of SGD; None with a `base`.
        rho: distance uphill, >= 0; for "usam" a distance for each unit of the gradient.
        variant: "sam", "usam" or "dnsam".
        momentum, weight_decay: of SGD, `solvers.SGD` with coupled decay. The decay has no part in the way uphill.
        base: makes the optimizer that steps, `lambda params: torch.optim.AdamW(params, 1e-3)`.
        full: for "dnsam", a closure of the full-batch loss; called once a step.

    Raises:
        ValueError: settings that are not possible or that do not go together, a base that needs the loss; at a step,
            no closure, a closure that adds to the `.grad` of before, or a gradient that is not finite: parameters are
            unchanged then.

    Example:
        >>> import torch
        >>> from solvers import SAM
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = SAM([x], lr=0.1, rho=0.05)  # or base=lambda params: torch.optim.AdamW(params)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(50)]
        >>> losses[0], losses[-1] < 0.01
        (13.0, True)
    """

    uphill: bool = False

    def __init__(
        self,
        params: Parameters,
        lr: float | None = None,
        *,
        rho: float = 0.05,
        variant: str = "sam",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        base: Callable[[Any], Optimizer] | None = None,
        full: Closure | None = None,
    ) -> None:
        check(rho=(rho, 0 <= rho < math.inf), variant=(variant, variant in VARIANTS))
        if (variant == "dnsam") != (full is not None):
            raise ValueError("'dnsam' needs full=, a closure of the full-batch loss, and the other variants have none")
        if base is None and lr is None:
            raise ValueError("pass lr, the step size of SGD, or base, which makes an optimizer of the parameters")
        if base is not None and (lr is not None or momentum or weight_decay):
            raise ValueError("lr, momentum and weight_decay belong to the base: set them there")
        super().__init__(params, {"rho": rho})
        self.variant, self.full = variant, full
        if base is None:
            self.base: Optimizer = SGD(self.param_groups, lr or 0.0, momentum=momentum, weight_decay=weight_decay)
        else:
            self.base = base(self.param_groups)
        plain = isinstance(self.base, FirstOrder) and not isinstance(self.base, LossFirstOrder)
        if isinstance(self.base, Solver) and not plain:
            raise ValueError(f"{type(self.base).__name__} needs more than the gradient: take a base that does not")
        self._share()

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; the loss where it began, not uphill. Raises what `Solver.evaluate` does, and as the class says."""
        if closure is None:
            raise ValueError("SAM needs step(closure): it evaluates the batch at two points")
        batch = self.repeatable(closure)
        loss, gradients, norm = self._gradients(batch)
        full = self.full
        if full is not None:
            norm = self._gradients(lambda: batch.aside(full))[2]
        with self._moved(gradients, norm):
            gradients = self._gradients(batch)[1]
        self._descend(gradients)
        return loss

    def _gradients(self, closure: Closure) -> tuple[Tensor, dict[Tensor, Tensor], float]:
        """Loss, gradients, and their norm over all groups, which is finite."""
        kept = {p: p.grad for p in self.leaves() if p.grad is not None}
        loss, given = self.evaluate(closure)
        if any(given.get(p) is grad for p, grad in kept.items()):
            raise ValueError(
                "SAM takes the gradient of one batch: let the closure call zero_grad(set_to_none=True) first"
            )
        norm = math.sqrt(square_norm(list(given.values()))) if given else 0.0
        if not math.isfinite(norm):
            raise ValueError(f"the norm of the gradient is {norm}: the parameters are as before")
        return loss, given, norm

    @contextmanager
    def _moved(self, gradients: dict[Tensor, Tensor], norm: float) -> Iterator[None]:
        """The parameters uphill, and back again bit by bit."""
        kept = [p.clone() for p in gradients]
        scale = 1.0 if self.variant == "usam" else 1.0 / norm if norm > 0 else 0.0
        try:
            for group in self.param_groups:
                moved = [p for p in group["params"] if p in gradients]
                if moved:
                    torch._foreach_add_(moved, [gradients[p] for p in moved], alpha=group["rho"] * scale)
            self.uphill = True
            yield
        finally:
            self.uphill = False
            if kept:
                torch._foreach_copy_(list(gradients), kept)

    def _descend(self, gradients: dict[Tensor, Tensor]) -> None:
        """A step of the base with these gradients; `.grad` is as before."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        kept = [p.grad for p in parameters]
        try:
            for p in parameters:
                p.grad = gradients.get(p)
            self.base.step()
        finally:
            for p, grad in zip(parameters, kept, strict=True):
                p.grad = grad

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, at any time. Raises `ValueError` for settings that are not possible."""
        rho = param_group.get("rho", self.defaults["rho"])
        check(rho=(rho, 0 <= rho < math.inf))
        if hasattr(self, "base"):
            self.base.add_param_group({"rho": rho, **param_group})
        else:
            super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit, with a base of the same kind."""
        super().load_state_dict(state_dict)
        self.base.__setstate__({"state": self.state, "param_groups": self.param_groups})
        self._share()

    def _share(self) -> None:
        """Groups, state and defaults are the base's."""
        self.param_groups, self.state = self.base.param_groups, self.base.state
        for group in self.param_groups:
            group.setdefault("rho", self.defaults["rho"])  # where the base has made groups of its own
        self.defaults = {**self.base.defaults, "rho": self.defaults["rho"]}
