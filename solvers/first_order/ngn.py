"""NGN: gradient steps that a Gauss-Newton model of sqrt(f) sizes (arXiv 2407.04358, with momentum arXiv 2508.15071).

With f the loss above `lower_bound` and r = sqrt(f), one model for all parameter groups h, each with its own lr_h:

    p = argmin (r + grad r . p)^2 + sum_h ||p_h||_D^2 / (2 lr_h)
      = -gamma D^-1 g,   gamma_h = lr_h s,   s = 2 f / (2 f + sum_h lr_h ||g_h||^2_{D^-1})
    x+ = x + (1 - momentum) p + momentum (x - x_prev)

    variant   D                                model              name (arXiv 2508.15071)
    "ngn"     1                                one                NGN; NGN-M, Algorithm 1, with momentum
    "d"       1                                by coordinate      NGN-D, Algorithm 3
    "md1"     eps + sqrt(v / (1 - beta2^k))    one                NGN-MDv1, Algorithm 2
    "md2"     the same                         by coordinate      NGN-MDv2, Algorithm 2

By coordinate, p_j = -lr g_j / (D_j + lr g_j^2 / (2 f)). v <- beta2 v + (1 - beta2) g^2 from 0, k = 1, 2, ... The step
sizes come from the gradient itself, never from a running mean of gradients (that version diverges).

Weight decay (appendix G there), which like p goes into the next x - x_prev:

    "dec"   x+ = (as above) - lr weight_decay x
    "w"     the model gets + sum_h (weight_decay_h / 2) ||x_h + p_h||_D^2, and max(r + grad r . p, 0) for its root:
            with c_h = lr_h / (1 + lr_h weight_decay_h) in place of lr_h,
            s = max(2 f - sum_h c_h weight_decay_h <g_h, x_h>, 0) / (2 f + sum_h c_h ||g_h||^2_{D^-1}),
            x+ = x / (1 + lr weight_decay) - (1 - momentum) c s D^-1 g + momentum (x - x_prev)

As in "dec", momentum damps the gradient's part alone and lets the decay act 1 / (1 - momentum) times in the long run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solvers.base import Parameters, check
from solvers.first_order.base import LossFirstOrder, StepSize, Update, buffers, inner_products, square_norm

VARIANTS = ("ngn", "d", "md1", "md2")
JOINT = ("ngn", "md1")  # one model for all coordinates
CACHED = 2**18  # entries that several passes find in a CPU's cache again
PLAIN: dict[str, Any] = {"maximize": False, "weight_decay": 0.0}  # what torch's kernels shall not do
STEEPEST = 1e30  # lr / (2 f) at most, so that its product with 0 is 0 in float32


class NGN(LossFirstOrder):
    """The NGN family; see the module for the updates. Any lr is stable on smooth losses that reach their bound.

    The loss must not fall below `lower_bound`; one that is below by at most 1e-6 |lower_bound| counts as there, where
    the gradient's part of the step is 0. `last.shrink` is s, nan without a group whose model is one for all
    coordinates; `last.norm` is ||g||_{D^-1}, with D = 1 for the groups by coordinate. The states (the displacement
    x - x_prev with momentum, v with "md1" and "md2") have the dtype of the parameter, as torch's own have; all variants
    but "ngn" keep as much memory again for their directions.

    A step raises `ValueError`, and changes neither parameters nor states, for a loss below the bound or not finite, for
    no loss, and for gradients whose norm is not finite.

    Args:
        params: parameters, or groups with settings of their own (all but `lower_bound`).
        lr: c of the papers, >= 0 and finite: the largest step size.
        momentum: in [0, 1).
        variant: "ngn", "d", "md1" or "md2".
        beta2, eps: of D, in [0, 1) and > 0.
        weight_decay: >= 0.
        decay: "dec" or, for "ngn" and "md1", "w".
        lower_bound: what the loss never falls below.

    Example:
        >>> import torch
        >>> from solvers import NGN
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = NGN([x], lr=100.0)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(5)]
        >>> losses[0], losses[-1] < 1e-6, solver.last.shrink < 0.01  # of the lr, which is far too large
        (13.0, True, True)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        *,
        momentum: float = 0.0,
        variant: str = "ngn",
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay: str = "dec",
        lower_bound: float = 0.0,
    ) -> None:
        check(lower_bound=(lower_bound, math.isfinite(lower_bound)))
        settings = {"lr": lr, "momentum": momentum, "variant": variant, "beta2": beta2, "eps": eps}
        decays = {"weight_decay": weight_decay, "decay": decay}
        super().__init__(params, settings | decays | {"lower_bound": lower_bound})

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        lr, decay = group["lr"], group["weight_decay"]
        check(
            lr=(lr, 0 <= lr < math.inf),
            momentum=(group["momentum"], 0 <= group["momentum"] < 1),
            variant=(group["variant"], group["variant"] in VARIANTS),
            beta2=(group["beta2"], 0 <= group["beta2"] < 1),
            eps=(group["eps"], group["eps"] > 0),
            weight_decay=(decay, 0 <= decay < math.inf),
            decay=(group["decay"], group["decay"] in ("dec", "w")),
        )
        if group["decay"] == "w" and group["variant"] not in JOINT:
            raise ValueError(f'decay="w" is for the variants "ngn" and "md1"; "{group["variant"]}" has decay="dec"')
        if group["lower_bound"] != self.defaults["lower_bound"]:
            raise ValueError("lower_bound belongs to the loss, not to a group: pass it to NGN itself")

    def _move_all(self, loss: float, updates: list[Update]) -> None:
        f = self.gap(loss, float(updates[0].group["lower_bound"]))
        squares = [square_norm(update.gradients) for update in updates]
        if not all(math.isfinite(square) for square in squares):
            raise ValueError("the norm of the gradients is not finite: nothing was moved")
        directions = [self._directions(update) for update in updates]
        curve = pull = 0.0
        for i, (update, us) in enumerate(zip(updates, directions, strict=True)):
            if update.group["variant"] == "md1":
                squares[i] = float(inner_products(update.gradients, us).sum())
            if update.group["variant"] in JOINT:
                c, decay = _rates(update.group)
                curve += c * squares[i]
                if update.group["decay"] == "w" and decay:
                    pull += decay * float(inner_products(update.gradients, update.parameters).sum())
        shrink = max(2 * f - pull, 0.0) / (2 * f + curve) if f or curve else 1.0
        for update, us in zip(updates, directions, strict=True):
            _move_group(update, us, f, shrink)
        joint = any(update.group["variant"] in JOINT for update in updates)
        self.last = StepSize(loss, math.sqrt(sum(squares)), shrink if joint else math.nan)

    def _directions(self, update: Update) -> list[Tensor]:
        """D^-1 g, for which v sees g; in memory that is kept, but for "ngn", whose directions are the gradients."""
        if update.group["variant"] == "ngn":
            return update.gradients
        scratch = self.__dict__.setdefault("_scratch", {})  # a copied or pickled solver comes without
        us: list[Tensor] = scratch.get(id(update.group), [])
        if [_layout(u) for u in us] != [_layout(p) for p in update.parameters]:
            us = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in update.parameters]
            scratch[id(update.group)] = us
        if update.group["variant"] == "d":
            torch._foreach_copy_(us, update.gradients)
        else:
            _precondition(us, update)
        return us


def _layout(t: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return t.shape, t.dtype, t.device


def _rates(group: Mapping[str, Any]) -> tuple[float, float]:
    """c, the largest step size, and the share of x that decays."""
    lr, decay = float(group["lr"]), group["weight_decay"]
    c = lr / (1 + lr * decay) if group["decay"] == "w" else lr
    return c, c * decay


def _precondition(us: list[Tensor], update: Update) -> None:
    """v sees g, then u = D^-1 g: Adam's fused kernel, whose first moment is g with beta1 = 0."""
    vs = buffers(update.states, update.parameters, "square")
    for state in update.states:
        state["step"] = state.get("step", 0) + 1
    torch._foreach_zero_(us)
    steps = [torch.tensor(float(state["step"]), device=u.device) for state, u in zip(update.states, us, strict=True)]
    for targets, gs, seen, counts in group_by_device(us, update.gradients, vs, steps):
        # the kernel does not look at strides, and what it leaves of first moments is not read again
        flat_gs, flat_vs = [g.contiguous() for g in gs], [v.contiguous() for v in seen]
        first = targets[0].new_zeros(max(t.numel() for t in targets))
        firsts = [first[: t.numel()].view(t.shape) for t in targets]
        scales: dict[str, Any] = {"lr": -1.0, "beta1": 0.0, "beta2": update.group["beta2"], "eps": update.group["eps"]}
        torch._fused_adam_(targets, flat_gs, firsts, flat_vs, [], counts, amsgrad=False, **scales, **PLAIN)
        for v, flat in zip(seen, flat_vs, strict=True):
            if flat is not v:
                v.copy_(flat)


def _move_group(update: Update, us: list[Tensor], f: float, shrink: float) -> None:
    group, xs = update.group, update.parameters
    c, decay = _rates(group)
    rate, momentum = (1 - group["momentum"]) * c, group["momentum"]
    if group["variant"] in JOINT:
        rate *= shrink
    elif f:
        _by_coordinate(us, update.gradients, min(c / (2 * f), STEEPEST))
    else:
        rate = 0.0
    if not momentum:
        if decay:
            torch._foreach_mul_(xs, 1 - decay)
        torch._foreach_add_(xs, us, alpha=-rate)
        return
    for points, directions, moved in group_by_device(xs, us, buffers(update.states, xs, "displacement")):
        _descend(points, directions, moved, rate, momentum, decay)


def _by_coordinate(us: list[Tensor], gradients: list[Tensor], curve: float) -> None:
    """g_j / (D_j + curve g_j^2) in place of u_j = g_j / D_j."""
    ones = us[0].new_ones(0)
    for u, g in zip(us, gradients, strict=True):
        if len(ones) < min(CACHED, u.numel()) or ones.dtype != u.dtype or ones.device != u.device:
            ones = u.new_ones(min(CACHED, u.numel()))
        for piece, seen in zip(u.view(-1).split(CACHED), g.reshape(-1).split(CACHED), strict=True):
            piece.div_(torch.addcmul(ones[: len(piece)], seen, piece, value=curve))


def _descend(xs: list[Tensor], us: list[Tensor], ds: list[Tensor], rate: float, momentum: float, decay: float) -> None:
    """d <- momentum d - decay x - rate u, then x <- x + d."""
    # SGD's kernel makes both in one pass; it takes 1 + rate, which costs digits that only float32 does not miss
    exact = rate > 1e-8 and all(t.is_contiguous() and t.dtype == torch.float32 for ts in (xs, us, ds) for t in ts)
    if not exact:
        torch._foreach_mul_(ds, momentum)
    if decay:
        torch._foreach_add_(ds, xs, alpha=-decay / momentum if exact else -decay)
    if exact:
        scales: dict[str, Any] = {"lr": -1.0, "momentum": momentum, "dampening": 1.0 + rate}
        torch._fused_sgd_(xs, us, ds, nesterov=False, is_first_step=False, **scales, **PLAIN)
    else:
        torch._foreach_add_(ds, us, alpha=-rate)
        torch._foreach_add_(xs, ds)


def group_by_device(*lists: list[Tensor]) -> list[list[list[Tensor]]]:
    """The lists cut by device and dtype of the first one's tensors."""
    found: dict[Any, list[tuple[Tensor, ...]]] = {}
    for row in zip(*lists, strict=True):
        found.setdefault((row[0].device, row[0].dtype), []).append(row)
    return [[list(column) for column in zip(*rows, strict=True)] for rows in found.values()]
