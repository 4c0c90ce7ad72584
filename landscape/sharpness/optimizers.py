"""What one step of torch's optimizers is on a parameter: lr, momentum, weight decay and the diagonal scale.

Every rule is written for a preconditioner that stands still: theta <- (1 - lr decoupled) theta - lr scale m, with m the
accumulated gradient of f + (decay / 2) |theta|^2 and `factor` such that lr a scale <= (2 - lr decoupled) factor is
stable. The formulas are those that torch documents for each optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

Group = Mapping[str, Any]
State = Mapping[str, Any]


class Unknown(ValueError):
    """No threshold is known; the message says why."""


@dataclass(frozen=True)
class Rule:
    """How one parameter is moved; `scale` is 1 or a tensor in the parameter's shape, float64."""

    lr: float
    momentum: float
    factor: float
    scale: float | Tensor = 1.0
    decay: float = 0.0
    decoupled: float = 0.0


def rule_of(optimizer: Optimizer, group: Group, p: Tensor) -> Rule | None:
    """The rule of a parameter in its group; None for one that the optimizer has not moved yet.

    Raises `Unknown` for optimizers whose threshold is not known.
    """
    kind = type(optimizer)
    if kind not in _RULES:
        known = ", ".join(k.__name__ for k in _RULES)
        raise Unknown(f"no stability threshold is known for {kind.__name__}: known are {known}")
    if group.get("maximize"):
        raise Unknown("the optimizer maximizes: its threshold is on the smallest eigenvalue")
    if kind in ADAPTIVE and not has_moved(optimizer, p):
        return None
    return _RULES[kind](group, optimizer.state.get(p, {}))


def has_moved(optimizer: Optimizer, p: Tensor) -> bool:
    """Whether the state of the parameter is that of a step (Adagrad has one before)."""
    return float(optimizer.state.get(p, {}).get("step", 0)) > 0


def sgd_rule(group: Group, state: State) -> Rule:
    """Of gradient descent with momentum or Nesterov's; the state does not matter."""
    beta = float(group["momentum"])
    factor = (1 + beta) / (1 + 2 * beta) if group.get("nesterov") else 1 + beta
    # without momentum torch keeps no buffer, and dampening damps nothing
    factor /= 1 - float(group.get("dampening", 0.0)) if beta else 1.0
    return Rule(float(group["lr"]), beta, factor, decay=float(group.get("weight_decay", 0.0)))


def _adam(group: Group, state: State) -> Rule:
    beta1, beta2 = (float(b) for b in group["betas"])
    step = float(state["step"])
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].detach().double()
    root = (second / (1 - beta2**step)).sqrt() + float(group["eps"])
    decay = float(group["weight_decay"])
    coupled = not group.get("decoupled_weight_decay", False)
    return Rule(
        float(group["lr"]),
        beta1,
        (1 + beta1) / (1 - beta1),
        scale=1.0 / (root * (1 - beta1**step)),
        decay=decay if coupled else 0.0,
        decoupled=0.0 if coupled else decay,
    )


def _rmsprop(group: Group, state: State) -> Rule:
    second = state["square_avg"].detach().double()
    if group["centered"]:
        second = (second - state["grad_avg"].detach().double().square()).clamp_min(0.0)
    momentum = float(group["momentum"])
    scale = 1.0 / (second.sqrt() + float(group["eps"]))
    return Rule(float(group["lr"]), momentum, 1 + momentum, scale=scale, decay=float(group["weight_decay"]))


def _adagrad(group: Group, state: State) -> Rule:
    faded = 1 + (float(state["step"]) - 1) * float(group["lr_decay"])
    scale = 1.0 / ((state["sum"].detach().double().sqrt() + float(group["eps"])) * faded)
    return Rule(float(group["lr"]), 0.0, 1.0, scale=scale, decay=float(group["weight_decay"]))


_RULES: dict[type[Optimizer], Callable[[Group, State], Rule]] = {
    SGD: sgd_rule,
    Adam: _adam,
    AdamW: _adam,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}
ADAPTIVE: frozenset[type[Optimizer]] = frozenset({Adam, AdamW, RMSprop, Adagrad})
