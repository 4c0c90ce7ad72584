"""Where an optimizer becomes unstable: the largest eigenvalue up to which its steps on a quadratic stay bounded.

Along an eigenvector of curvature a, a method with momentum beta that accumulates (1 - tau) of each gradient moves by
theta_(t+1) = (1 + beta - eta (1 - tau) a) theta_t - beta theta_(t-1), which is stable up to eta a = (2 + 2 beta) /
(1 - tau): 2 / eta for gradient descent; for Nesterov's momentum up to (2 + 2 beta) / (1 + 2 beta) (Cohen et al., arXiv
2103.00065). An adaptive method whose preconditioner P changes slowly does the same in the eigenvalues of
P^(-1/2) H P^(-1/2); Adam averages its gradients, tau = beta_1 (Cohen et al., arXiv 2207.14484). A coupled weight decay
adds to the curvature. A decoupled one, s = eta * decay, has z^2 - (1 - s + beta - eta (1 - tau) a) z + beta (1 - s) as
its characteristic polynomial, hence (1 + beta)(2 - s) / (1 - tau) in place of (2 + 2 beta) / (1 - tau).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from landscape.objective.objective import Objective
from landscape.objective.wrappers import unwrap
from landscape.operators.linear import LinearOperator
from landscape.operators.preconditioned import DiagonalOperator, Preconditioned
from landscape.sharpness.optimizers import ADAPTIVE, Rule, Unknown, has_moved, rule_of, sgd_rule


@dataclass(frozen=True)
class Stability:
    """What curvature an optimizer bears at its present settings and state.

    Attributes:
        threshold: on the largest eigenvalue of the Hessian, in loss/parameter^2; nan where only the preconditioned one
            decides. With different coupled weight decays it is that for the largest of them.
        preconditioned_threshold: on the largest eigenvalue of `operator(Hessian)`; nan when `scale` is None.
        scale: `(n,)`, D = P^-1 in the objective's order: the step is -lr D m, m the (averaged) gradient; 0 for a
            parameter that the optimizer does not move. Learning rates that differ are in D, and the threshold is for
            lr = 1. None for one learning rate without a preconditioner.
        decay: coupled weight decay, which adds to the curvature: a number, or `(n,)` where parameters have their own.
        adaptive: the optimizer has a preconditioner of its own.
        lr: learning rate, nan where parameters have their own.
        momentum: beta.
        note: why a threshold is nan, or what it leaves out; "" when there is nothing to say.
    """

    threshold: float
    preconditioned_threshold: float
    scale: Tensor | None = field(repr=False)
    decay: float | Tensor = field(repr=False)
    adaptive: bool
    lr: float
    momentum: float
    note: str = ""

    @property
    def preconditioner(self) -> Tensor | None:
        """P `(n,)`, inf for a parameter that is not moved; None as `scale`."""
        return None if self.scale is None else 1.0 / self.scale

    def operator(self, A: LinearOperator) -> LinearOperator:
        """D^(1/2) (A + decay) D^(1/2): its largest eigenvalue is what `preconditioned_threshold` bounds.

        Raises `ValueError` when there is no preconditioner.
        """
        if self.scale is None:
            raise ValueError(f"there is no preconditioner{': ' if self.note else ''}{self.note}")
        if isinstance(self.decay, Tensor):
            A = A + DiagonalOperator(self.decay.to(device=A.device, dtype=A.dtype))
        elif self.decay:
            A = A.shifted(self.decay)
        return Preconditioned(A, self.scale)


def stability(optimizer: Optimizer, objective: Objective) -> Stability:
    """The thresholds of `torch.optim`'s SGD, Adam, AdamW, RMSprop and Adagrad for the objective's parameters.

    The parameters are found by identity in the objective's model. Those that the optimizer does not have, or has not
    moved yet while it has moved others, count as fixed. The preconditioner is that of the last step, with its bias
    corrections. For other optimizers, parameter groups with different momentum, `maximize=True`, and adaptive ones
    before their first step, the thresholds are nan and `note` says why. Full-batch thresholds: with SGD's noise
    compare `batch_sharpness`.

    Raises `TypeError` when `optimizer` is not a torch optimizer.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import stability
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> round(stability(optimizer, f).threshold, 4)
        38.0
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
    try:
        if objective.sharded and type(optimizer) in ADAPTIVE:
            raise Unknown("the optimizer's state is sharded with the model")
        rules = _rules(optimizer, objective)
        return _join(optimizer, objective, rules)
    except Unknown as reason:
        return Stability(math.nan, math.nan, None, 0.0, type(optimizer) in ADAPTIVE, math.nan, math.nan, str(reason))


def _rules(optimizer: Optimizer, objective: Objective) -> dict[str, Rule]:
    """How each of the objective's parameters is moved, by name; those that are not moved are left out."""
    parameters = dict(unwrap(objective.model).named_parameters())
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    held = {name: p for name in objective.names if id(p := parameters[name]) in groups}
    if not held:
        raise Unknown("the optimizer holds none of the objective's parameters: was it made from another model?")
    if type(optimizer) in ADAPTIVE and not any(has_moved(optimizer, p) for p in held.values()):
        raise Unknown(f"{type(optimizer).__name__} has no preconditioner before its first step")
    found = {name: rule_of(optimizer, groups[id(p)], p) for name, p in held.items()}
    return {name: rule for name, rule in found.items() if rule is not None}


def _join(optimizer: Optimizer, objective: Objective, rules: dict[str, Rule]) -> Stability:
    """One threshold for all parameters, what differs between them in the scale."""
    momenta = {(rule.momentum, rule.factor) for rule in rules.values()}
    if len(momenta) > 1:
        raise Unknown("the parameter groups have different momentum: there is no one threshold for all of them")
    momentum, factor = momenta.pop()
    if not 0 <= momentum < 1:
        raise Unknown(f"momentum {momentum} has no stable step")
    rates = {rule.lr for rule in rules.values()}
    lr = rates.pop() if len(rates) == 1 else math.nan
    # decays that differ move the factor (2 - s) by less than s / 2: the smallest one is taken
    factor = factor * (2.0 - max(rule.lr * rule.decoupled for rule in rules.values()))
    adaptive = type(optimizer) in ADAPTIVE
    fixed = [name for name in objective.names if name not in rules]
    decays = {rule.decay for rule in rules.values()}
    same = len(decays) == 1
    decay = decays.pop() if same else _vector(objective, {name: rule.decay for name, rule in rules.items()})
    plain = not adaptive and not math.isnan(lr) and not fixed
    own = plain and not isinstance(decay, Tensor)  # then the plain threshold says it all
    rate = 1.0 if math.isnan(lr) else lr
    bound = factor / rate if rate > 0 else math.inf
    scales = {name: rule.scale * (rule.lr if math.isnan(lr) else 1.0) for name, rule in rules.items()}
    scale = None if own else _vector(objective, scales)
    threshold = bound - (float(decay.max()) if isinstance(decay, Tensor) else decay) if plain else math.nan
    note = f"{len(fixed)} parameters are not moved by the optimizer, {fixed[0]} among them" if fixed else ""
    return Stability(threshold, math.nan if own else bound, scale, decay, adaptive, lr, momentum, note)


def _vector(objective: Objective, pieces: dict[str, float | Tensor]) -> Tensor:
    """`(n,)` float64 on the objective's device: the pieces of parameters by name, 0 where there is none."""
    if objective.sharded:
        raise Unknown("the parameters of a sharded model are not all moved alike")
    v = torch.zeros(objective.size, dtype=torch.float64, device=objective.device)
    for name, piece in pieces.items():
        v[objective.slices[name]] = piece.reshape(-1).to(v) if isinstance(piece, Tensor) else piece
    return v


def plain_threshold(lr: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """The threshold of SGD with these settings, for a run whose optimizer is not at hand. Raises `ValueError`.

    Example:
        >>> from landscape.sharpness import plain_threshold
        >>> round(plain_threshold(lr=0.1, momentum=0.9), 4)
        38.0
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, not {lr}")
    return 2.0 * sgd_rule({"lr": lr, "momentum": momentum, "nesterov": nesterov}, {}).factor / lr
