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

    "dec"   x+ = (what stands above) - lr weight_decay x
    "w"     the model gets + sum_h (weight_decay_h / 2) ||x_h + p_h||_D^2, and max(r + grad r . p, 0) for its root:
            with c_h = lr_h / (1 + lr_h weight_decay_h) in place of lr_h,
            s = max(2 f - sum_h c_h weight_decay_h <g_h, x_h>, 0) / (2 f + sum_h c_h ||g_h||^2_{D^-1}),
            x+ = x / (1 + lr weight_decay) - (1 - momentum) c s D^-1 g + momentum (x - x_prev)

As in "dec", momentum damps the gradient's part alone and lets the decay act 1 / (1 - momentum) times in the long run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.base import LossFirstOrder, Parameters, Part, StepSize, buffers, check, square_norms
from solvers.ngn_blocks import Scratch, blocks, dot, fused_momentum, fused_suits, total

VARIANTS = ("ngn", "d", "md1", "md2")
JOINT = ("ngn", "md1")  # one model for all coordinates
PRECONDITIONED = ("md1", "md2")
STEEPEST = 1e30  # lr / (2 f) at most, so that its product with 0 is 0 in float32


class NGN(LossFirstOrder):
    """The NGN family; see the module for the updates. Any lr is stable on smooth losses that reach their bound.

    The loss must not fall below `lower_bound`; one that is below by at most 1e-6 |lower_bound| counts as there, where
    the gradient's part of the step is 0. `last.shrink` is s, nan without a group whose model is one for all
    coordinates; `last.norm` is ||g||_{D^-1}, with D = 1 for the groups by coordinate. The states (the displacement
    x - x_prev with momentum, v with "md1" and "md2") have the dtype of the parameter, as torch's own have.

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
    """

    def __init__(
        self, params: Parameters, lr: float = 1.0, *, momentum: float = 0.0, variant: str = "ngn",
        beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0, decay: str = "dec",
        lower_bound: float = 0.0,
    ) -> None:  # fmt: skip
        check(lower_bound=(lower_bound, math.isfinite(lower_bound)))
        super().__init__(
            params, {
                "lr": lr, "momentum": momentum, "variant": variant, "beta2": beta2, "eps": eps,
                "weight_decay": weight_decay, "decay": decay, "lower_bound": lower_bound,
            },
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's. Raises `ValueError` for settings that are not possible."""
        group = {**self.defaults, **param_group}
        lr, decay = group["lr"], group["weight_decay"]
        check(
            lr=(lr, 0 <= lr < math.inf), momentum=(group["momentum"], 0 <= group["momentum"] < 1),
            variant=(group["variant"], group["variant"] in VARIANTS), beta2=(group["beta2"], 0 <= group["beta2"] < 1),
            eps=(group["eps"], group["eps"] > 0), weight_decay=(decay, 0 <= decay < math.inf),
            decay=(group["decay"], group["decay"] in ("dec", "w")),
        )  # fmt: skip
        if group["decay"] == "w" and group["variant"] not in JOINT:
            raise ValueError(f'decay="w" is for the variants "ngn" and "md1"; "{group["variant"]}" has decay="dec"')
        if group["lower_bound"] != self.defaults["lower_bound"]:
            raise ValueError("lower_bound belongs to the loss, not to a group: pass it to NGN itself")
        super().add_param_group(param_group)

    def _move_all(self, loss: float, parts: list[Part]) -> None:
        f = self.above(loss, float(parts[0].group["lower_bound"]))
        squares = [_square(part) for part in parts]
        if not all(math.isfinite(square) for square in squares):
            raise ValueError("the norm of the gradients is not finite: nothing was moved")
        joint = [(part, square) for part, square in zip(parts, squares, strict=True) if part.group["variant"] in JOINT]
        curve = sum(_rates(part.group)[0] * square for part, square in joint)
        pull = sum(_pull(part) for part, _ in joint)
        shrink = max(2 * f - pull, 0.0) / (2 * f + curve) if f or curve else 1.0
        for part in parts:
            _move_part(part, f, shrink)
        self.last = StepSize(loss, math.sqrt(sum(squares)), shrink if joint else math.nan)


def _rates(group: Mapping[str, Any]) -> tuple[float, float]:
    """c, the largest step size, and the share of x that decays."""
    lr, decay = float(group["lr"]), group["weight_decay"]
    c = lr / (1 + lr * decay) if group["decay"] == "w" else lr
    return c, c * decay


def _pull(part: Part) -> float:
    """By how much the decay of "w" alone lowers the model's 2 f."""
    decay = _rates(part.group)[1]
    if part.group["decay"] != "w" or not decay:
        return 0.0
    return decay * total([dot(g, p) for g, p in zip(part.gradients, part.parameters, strict=True)])


def _square(part: Part) -> float:
    """||g||^2; for "md1" in the metric D^-1 that has seen g. No state changes."""
    group, parameters, gradients, states = part
    if group["variant"] != "md1":
        return square_norms([part])[0]
    squares = [s["square"] if "square" in s else torch.zeros_like(p) for s, p in zip(states, parameters, strict=True)]
    scratch, terms = Scratch(3), []
    for steps, gs, vs in blocks(_step_tensors(part), gradients, squares):
        seen, downhill, first = scratch.like(gs)
        torch._foreach_copy_(seen, vs)
        torch._foreach_zero_(downhill)
        _precondition(downhill, gs, seen, first, steps, group, 1.0)
        terms += [-dot(g, p) for g, p in zip(gs, downhill, strict=True)]
    return total(terms)


def _move_part(part: Part, f: float, shrink: float) -> None:
    group, parameters, gradients, states = part
    variant, momentum = group["variant"], group["momentum"]
    c, decay = _rates(group)
    rate, curve = (1 - momentum) * c, min(c / (2 * f), STEEPEST) if f else 0.0
    moved = buffers(states, parameters, "displacement") if momentum else parameters
    squares = [buffers(states, parameters, "square")] if variant in PRECONDITIONED else []
    counts: Sequence[Any] = _step_tensors(part) if variant == "md1" else _steps(part)
    scratch = Scratch(2)
    for steps, xs, gs, ds, *vs in blocks(counts, parameters, gradients, moved, *squares, whole=variant == "ngn"):
        if variant == "ngn":
            _descend(xs, gs, ds, rate * shrink, momentum, decay)
        elif variant == "md1":
            _decay(xs, ds, momentum, decay)
            _precondition(ds, gs, vs[0], scratch.like(gs)[0], steps, group, rate * shrink)
            if momentum:
                torch._foreach_add_(xs, ds)
        else:
            directions, scale = _by_coordinate(gs, vs, scratch.like(gs), steps, group, curve)
            _descend(xs, directions, ds, rate * scale if f else 0.0, momentum, decay)
    for state in states if squares else ():
        state["step"] = state.get("step", 0) + 1


def _decay(xs: list[Tensor], ds: list[Tensor], momentum: float, decay: float) -> None:
    """What is left of the last displacement, or without momentum of x, before the gradient's part."""
    keep = momentum or 1 - decay
    if keep != 1:
        torch._foreach_mul_(ds, keep)
    if momentum and decay:
        torch._foreach_add_(ds, xs, alpha=-decay)


def _descend(
    xs: list[Tensor], directions: list[Tensor], ds: list[Tensor], rate: float, momentum: float, decay: float
) -> None:
    """x+ = x - rate direction + momentum d - decay x, where d is the last displacement and becomes this one."""
    if momentum and not decay and fused_suits(rate, xs, directions, ds):
        fused_momentum(xs, directions, ds, rate, momentum)
        return
    _decay(xs, ds, momentum, decay)
    torch._foreach_add_(ds, directions, alpha=-rate)
    if momentum:
        torch._foreach_add_(xs, ds)


def _steps(part: Part) -> list[int]:
    """k of each parameter, which may have come later than others."""
    return [state.get("step", 0) + 1 for state in part.states]


def _step_tensors(part: Part) -> list[Tensor]:
    keys = [(k, p.device) for k, p in zip(_steps(part), part.parameters, strict=True)]
    tensors = {(k, device): torch.tensor(float(k), device=device) for k, device in set(keys)}
    return [tensors[key] for key in keys]


def _precondition(
    targets: list[Tensor], gs: list[Tensor], vs: list[Tensor], first: list[Tensor], steps: list[Tensor],
    group: Mapping[str, Any], rate: float,
) -> None:  # fmt: skip
    """v sees g, then targets -= rate D^-1 g: Adam's fused kernel, whose first moment is g with beta1 = 0."""
    # the kernel does not look at strides
    moved, gradients, seen = ([t.contiguous() for t in tensors] for tensors in (targets, gs, vs))
    torch._fused_adam_(
        moved, gradients, first, seen, [], steps, amsgrad=False, maximize=False, lr=rate, beta1=0.0,
        beta2=group["beta2"], eps=group["eps"], weight_decay=0.0,
    )  # fmt: skip
    for t, used in zip(targets + vs, moved + seen, strict=True):
        if used is not t:
            t.copy_(used)


def _by_coordinate(
    gs: list[Tensor], vs: list[list[Tensor]], scratch: list[list[Tensor]], steps: list[int], group: Mapping[str, Any],
    curve: float,
) -> tuple[list[Tensor], float]:  # fmt: skip
    """v sees g, then u and s with s u_j = g_j / (D_j + curve g_j^2), u in the scratch; D = 1 without v."""
    metric, squares = scratch
    scales = [math.sqrt(1 - group["beta2"] ** k) if vs else 1.0 for k in steps]
    same = scales[0] if len(set(scales)) == 1 else 1.0  # of both sides of the fraction: mostly costs no pass
    for i, (g, m, q, scale) in enumerate(zip(gs, metric, squares, scales, strict=True)):
        torch.mul(g, g, out=q)
        if vs:
            vs[0][i].lerp_(q, 1 - group["beta2"])
            torch.sqrt(vs[0][i], out=m).add_(group["eps"] * scale).add_(q, alpha=curve * scale)
            torch.div(g, m, out=m)
            if scale != same:
                m.mul_(scale)
        else:
            torch.div(g, q.mul_(curve).add_(1.0), out=m)
    return metric, same
