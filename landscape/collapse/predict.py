"""How NC0 = ||W^T 1||_2 moves in training, from the learning rates alone (arXiv 2602.16642, theorems 3.1 to 3.4).

The gradient of the cross-entropy in W is (S - Y) H^T / N, and the columns of S and of Y sum to 1: gradients never
move m = W^T 1, for any backbone and any batch (lemma E.5; label smoothing and class weights change nothing, MSE and
coordinate-wise rescaling do). What moves it is weight decay:

    sgdw    m+ = (1 - lr lam) m                               whatever the momentum
    sgd     v+ = beta v + lam m,  m+ = m - lr v+              heavy ball, v = 0 at the start

A sign is such a rescaling, and there the gradient has to be known: the unconstrained-features model with one sample
per class and features fixed at the simplex, H = (I - J/K) / sqrt(K - 1), trained from W = 0 on the average
cross-entropy. Its W stays in the span of I and J, and so two numbers say all.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Rule = Literal["sgd", "sgdw", "signsgd", "signsgdw"]

_TINY = float(np.finfo(np.float64).tiny)  # a gradient never vanishes, and its sign is all that counts


def predict_nc0(
    rule: Rule,
    lrs: Any,
    *,
    weight_decay: float,
    momentum: float = 0.0,
    nc0_initial: float,
    num_classes: int | None = None,
) -> Vector:
    """NC0 before the first step and after each one, `(T + 1,)` float64: exact recursions under any schedule.

    "sgd" is `torch.optim.SGD` with its coupled weight decay (no Nesterov, no dampening), "sgdw" the decoupled one,
    W (1 - lr lam) besides the step. Both hold for a network that ends in a linear layer without regard to the rest of
    it, trained with cross-entropy; the layer's bias is its own matter and follows the same recursion with |sum b|.
    exp(-lam / (1 - beta) sum lr) is the slow-decay limit of the first: its exponent is off by a share of about
    beta lr lam / (1 - beta)^2, and so NC0 by that share times the exponent.

    "signsgd" (coupled: sign(g + lam W)) and "signsgdw" hold for the unconstrained-features model above, W = 0 at the
    start. Momentum is Signum's: the sign of an average of gradients. Decoupled, NC0 rises to sqrt(K) (K - 2) / lam;
    coupled, it rises and then falls below 2 K^(3/2) lr. Where rounding loses a gradient (logit gaps
    beyond 36) its sign is still known here, not to a simulation.

    Args:
        rule: "sgd", "sgdw", "signsgd" or "signsgdw".
        lrs: `(T,)`, the learning rate of every step.
        weight_decay: lam >= 0.
        momentum: beta in [0, 1); it does not matter to the decoupled rules.
        nc0_initial: ||W_0^T 1||_2; 0 for the sign rules.
        num_classes: K >= 2, for the sign rules.

    Raises:
        ValueError: an unknown rule, numbers outside of their ranges or not finite, learning rates that are no vector;
            sign rules without `num_classes` or with another start than 0.

    Example:
        >>> from landscape.collapse import predict_nc0
        >>> predict_nc0("sgdw", [0.1, 0.1], weight_decay=0.5, nc0_initial=1.0).round(4).tolist()
        [1.0, 0.95, 0.9025]
    """
    steps = _checked(rule, lrs, weight_decay, momentum, nc0_initial)
    if rule == "sgdw":
        return np.abs(nc0_initial * np.cumprod(np.concatenate([[1.0], 1.0 - steps * weight_decay])))
    if rule == "sgd":
        return _heavy_ball(steps, weight_decay, momentum, nc0_initial)
    if num_classes is None or num_classes < 2:
        raise ValueError(f"the sign rules need num_classes of at least 2, got {num_classes}")
    if nc0_initial != 0.0:
        raise ValueError(f"the sign rules are known from W = 0 only: nc0_initial must be 0, not {nc0_initial:g}")
    if rule == "signsgdw":
        return _sign_decoupled(steps, weight_decay, num_classes)
    return _sign_coupled(steps, weight_decay, momentum, num_classes)


def _heavy_ball(lrs: Vector, decay: float, beta: float, start: float) -> Vector:
    m, v = float(start), 0.0
    values = [m]
    for lr in lrs.tolist():
        v = beta * v + decay * m
        m -= lr * v
        values.append(m)
    return np.abs(np.array(values))


def _sign_decoupled(lrs: Vector, decay: float, K: int) -> Vector:
    """W = w (J - 2 I), since sign(g) = J - 2 I as long as W is of this form (and so for averages of gradients)."""
    w = 0.0
    values = [w]
    for lr in lrs.tolist():
        w = (1.0 - lr * decay) * w - lr
        values.append(w)
    return (K - 2) * math.sqrt(K) * np.abs(np.array(values))


def _sign_coupled(lrs: Vector, decay: float, beta: float, K: int) -> Vector:
    """W = (a + b) I - b J, with a on the diagonal and -b beside it; the average of gradients is of this form too.

    psi is the gradient beside the diagonal, -(K - 1) psi the one on it. The gap between a sample's logit and the
    others is (a + b) / sqrt(K - 1); the paper's proof prints it once with K - 1 instead of the root in psi.
    """
    root = math.sqrt(K - 1)
    a = b = on = beside = 0.0
    values = [0.0]
    for lr in lrs.tolist():
        gap = (a + b) / root
        e = math.exp(-abs(gap))
        psi = (e / (1.0 + (K - 1) * e) if gap >= 0 else 1.0 / (e + K - 1)) / (K * root)
        psi = max(psi, _TINY)
        on = beta * on + decay * a - (K - 1) * psi
        beside = beta * beside - decay * b + psi
        a -= lr * _sign(on)
        b += lr * _sign(beside)
        values.append(a - (K - 1) * b)
    return math.sqrt(K) * np.abs(np.array(values))


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def _checked(rule: str, lrs: Any, weight_decay: float, momentum: float, nc0_initial: float) -> Vector:
    if rule not in get_args(Rule):
        raise ValueError(f"the rule is one of {', '.join(get_args(Rule))}, not {rule!r}")
    try:
        steps = np.asarray(lrs, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("lrs must be a vector of numbers, one per step") from None
    if steps.ndim != 1:
        raise ValueError(f"lrs must be a vector with one learning rate per step, not of shape {steps.shape}")
    if not (np.isfinite(steps).all() and (steps >= 0).all()):
        raise ValueError("lrs must be finite and not negative")
    for name, value in (("weight_decay", weight_decay), ("nc0_initial", nc0_initial)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    return steps
