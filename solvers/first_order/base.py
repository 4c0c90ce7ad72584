"""The base of first-order solvers: gradients in, one update of each group a step, by the loss too if a rule uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.base import Closure, Solver, check, to_dense
from solvers.distributed import average_loss


class Update(NamedTuple):
    """What a step moves of one group: its parameters that have a gradient, with their states.

    Complex ones come as pairs of reals, and gradients of a group that maximizes come negated.
    """

    group: Mapping[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]
    states: list[dict[str, Any]]

    def part(self, kept: Sequence[int]) -> Update:
        """The same of some of the parameters, by their places."""
        group, parameters, gradients, states = self
        return Update(group, [parameters[i] for i in kept], [gradients[i] for i in kept], [states[i] for i in kept])


class FirstOrder(Solver):
    """A solver that moves by gradients alone: `step(closure)`, or `loss.backward(); step()` as usual.

    A subclass implements `_move(update)`. Parameters without a gradient and frozen ones stay where they are, weight
    decay included; sparse gradients are made dense. A closure that calls `backward()` itself, as Lightning's, is a
    step with the `.grad` that it leaves. Where `torch.distributed` runs, the gradients that are taken of a closure are
    averaged over the processes, as `DistributedDataParallel` does with those of `backward()`.

    Example:
        >>> import torch
        >>> from solvers import FirstOrder
        >>> class Descent(FirstOrder):
        ...     def _move(self, update):
        ...         torch._foreach_add_(update.parameters, update.gradients, alpha=-update.group["lr"])
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> loss = Descent([x], {"lr": 0.5}).step(lambda: x.square().sum())
        >>> float(loss), x.tolist()
        (13.0, [0.0, 0.0])
    """

    maximizes = True

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *, loss: Tensor | float | None = None) -> Any:  # type: ignore[override]
        """One step; the loss at the point where it began: the closure's, or `loss` as it was given.

        Raises `ValueError` for both a closure and a loss.
        """
        if closure is None:
            given = {p: to_dense(p.grad) for p in self.leaves() if p.grad is not None}
        elif loss is not None:
            raise ValueError("pass a closure or the loss, not both")
        else:
            loss, given = self.evaluate(closure)
        updates = []
        for group in self.param_groups:
            ps = [p for p in group["params"] if p in given]
            if ps:
                gs = [as_real(given[p]) for p in ps]
                gs = list(torch._foreach_neg(gs)) if group.get("maximize") else gs
                updates.append(Update(group, [as_real(p) for p in ps], gs, [self.state[p] for p in ps]))
        self._apply(loss, updates)
        return loss

    def _apply(self, loss: Tensor | float | None, updates: list[Update]) -> None:
        """The step of all groups."""
        self._move_groups(updates)

    def _move_groups(self, updates: list[Update]) -> None:
        """The step of all groups, for a rule that does not use the loss."""
        for update in updates:
            self._move(update)

    def _move(self, update: Update) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def precondition(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """P^-1 v, as the state stands: what the preconditioner makes of vectors in place of the (averaged) gradient.

        Learning rate, momentum, clip and weight decay are no part of it, and the state stays. The map is linear,
        symmetric and positive definite. Of `AdamCoupled`, `Shampoo`, `SOAP`, `PSGD`,
        `ScaledGD` and `KFACDescent`.

        Args:
            vectors: one for each of `leaves()`, in its shape.

        Returns:
            As many, in the dtype of the steps: float32 at least in preconditioned solvers.

        Raises:
            TypeError: the solver has no such preconditioner.
            ValueError: other shapes; a parameter that no step has scaled yet.

        Example:
            >>> import torch
            >>> from solvers import AdamCoupled
            >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
            >>> solver = AdamCoupled([x], lr=0.1)
            >>> loss = solver.step(lambda: x.square().sum())  # the gradient is (6, -4)
            >>> (v,) = solver.precondition([torch.tensor([6.0, 6.0])])
            >>> [round(one, 3) for one in v.tolist()]
            [1.0, 1.5]
        """
        leaves = self.leaves()
        self._check_vectors(leaves, vectors)
        groups = {p: group for group in self.param_groups for p in group["params"]}
        made = [
            self._preconditioned_one(groups[p], as_real(v), self.state.get(p, {}))
            for p, v in zip(leaves, vectors, strict=True)
        ]
        return [torch.view_as_complex(u) if v.is_complex() else u for u, v in zip(made, vectors, strict=True)]

    def _preconditioned_one(self, group: Mapping[str, Any], v: Tensor, state: dict[str, Any]) -> Tensor:
        """P^-1 v of one parameter, real and as wide as steps are; raises as `precondition`."""
        raise TypeError(f"{type(self).__name__} has no preconditioner that is a linear map")

    @staticmethod
    def _check_vectors(leaves: Sequence[Tensor], vectors: Sequence[Tensor]) -> None:
        if [v.shape for v in vectors] != [p.shape for p in leaves]:
            raise ValueError("give a vector in the shape of each parameter that requires grad, as leaves() has them")


NOT_YET = "there is no preconditioner of a parameter before the step that makes it"


@dataclass(frozen=True)
class StepSize:
    """The step that a rule chose by itself.

    Attributes:
        loss: f where the step began, the mean over processes.
        norm: of the gradient (or direction) in the metric of the rule.
        shrink: the step as a share of each group's `lr`.
    """

    loss: float
    norm: float
    shrink: float


class LossFirstOrder(FirstOrder):
    """A solver whose rule uses the loss too: `step(closure)`, or `loss.backward(); step(loss=loss)`.

    Under a `GradScaler`, `scaler.step(solver, loss=loss)` with the loss as it is, not scaled. Where `torch.distributed`
    runs, the loss is averaged over the processes. A subclass implements `_move_all(loss, updates)`: one number steers
    all groups. `last` says which, None before the first step.
    """

    last: StepSize | None = None
    maximizes = False

    def _apply(self, loss: Tensor | float | None, updates: list[Update]) -> None:
        if loss is None:
            name = type(self).__name__
            raise ValueError(
                f"{name} needs the loss: call step(closure), or loss.backward() and step(loss=loss); where a trainer "
                "calls step() without it, as transformers.Trainer does, take a solver that moves by gradients alone"
            )
        value = average_loss(float(loss), updates[0].parameters[0].device if updates else torch.device("cpu"))
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value}: nothing was moved")
        if updates:
            self._move_all(value, updates)

    def _move_all(self, loss: float, updates: list[Update]) -> None:
        raise NotImplementedError

    def gap(self, loss: float, bound: float) -> float:
        """loss - bound, 0 where rounding has put it below. Raises `ValueError` for a loss further below."""
        if loss < bound - 1e-6 * abs(bound):
            name = type(self).__name__
            raise ValueError(
                f"{name} needs f >= lower_bound={bound:g} and the loss is {loss:g}: pass a smaller lower_bound="
            )
        return max(loss - bound, 0.0)


def as_real(t: Tensor) -> Tensor:
    """A complex tensor as pairs of reals: a view, but for gradients that torch has left to be conjugated."""
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def square_norm(tensors: list[Tensor]) -> float:
    """||g||^2 over all tensors, summed in their dtype, in float32 for those of 16 bits."""
    narrow = [t for t in tensors if t.dtype.itemsize < 4]
    norms = (
        list(torch._foreach_norm([t for t in tensors if t.dtype.itemsize >= 4], 2))
        if len(narrow) < len(tensors)
        else []
    )
    norms += torch._foreach_norm(narrow, 2, dtype=torch.float32) if narrow else []
    return float(torch.stack([n.to(dtype=torch.float64, device=norms[0].device) for n in norms]).square().sum())


def inner_products(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """<a, b> of each pair, summed in their dtype, in float32 for those of 16 bits; float64 on one device."""
    found = []
    for a, b in zip(first, second, strict=True):
        wide = torch.promote_types(a.dtype, torch.float32)
        found.append(torch.dot(a.flatten().to(wide), b.flatten().to(wide)))
    return torch.stack([dot.to(dtype=torch.float64, device=found[0].device) for dot in found])


def buffers(states: list[dict[str, Any]], parameters: list[Tensor], name: str) -> list[Tensor]:
    """A state tensor of each parameter, zero at first, in its dtype and on its device as they are now."""
    for state, p in zip(states, parameters, strict=True):
        if name not in state:
            state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        elif state[name].dtype != p.dtype or state[name].device != p.device:
            state[name] = state[name].to(p)
    return [state[name] for state in states]


def adam_root(update: Update, beta: float) -> list[Tensor]:
    """eps + sqrt(s'), s' the running mean of g^2 with its bias corrected; counts a step of each parameter."""
    square = buffers(update.states, update.parameters, "square")
    torch._foreach_mul_(square, beta)
    torch._foreach_addcmul_(square, update.gradients, update.gradients, 1.0 - beta)
    for state in update.states:
        state["step"] = state.get("step", 0) + 1
    root = torch._foreach_sqrt(square)
    # parameters that came later (or had no gradient at times) are at another step
    torch._foreach_div_(root, [math.sqrt(1.0 - beta ** state["step"]) for state in update.states])
    torch._foreach_add_(root, update.group["eps"])
    return list(root)


def adam_step(update: Update, lr: float) -> None:
    """theta <- theta - lr m' / (sqrt(s') + eps) with `betas` and `eps` of the group, m and s without their bias."""
    beta1, beta2 = update.group["betas"]
    mean = buffers(update.states, update.parameters, "mean")
    torch._foreach_lerp_(mean, update.gradients, 1.0 - beta1)
    root = adam_root(update, beta2)
    steps = [-lr / (1.0 - beta1 ** state["step"]) for state in update.states]
    torch._foreach_addcdiv_(update.parameters, mean, root, steps)


def momentum_settings(
    lr: float, momentum: float, weight_decay: float, decoupled: bool, maximize: bool
) -> dict[str, Any]:
    """Of a solver with a running mean and either kind of weight decay. Raises `ValueError` as `check`."""
    return check(
        lr=(lr, lr >= 0),
        momentum=(momentum, 0 <= momentum < 1),
        weight_decay=(weight_decay, weight_decay >= 0),
        decoupled=(decoupled, True),
        maximize=(maximize, True),
    )


def add_decay(gradients: list[Tensor], parameters: list[Tensor], decay: float) -> list[Tensor]:
    """Gradients of loss + (decay / 2) |theta|^2; new tensors where there is a decay."""
    return list(torch._foreach_add(gradients, parameters, alpha=decay)) if decay else gradients
