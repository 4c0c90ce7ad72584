"""What all solvers share: which parameters a step moves, how it gets its loss and gradients, and what is refused."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from solvers.distributed import average_gradients
from solvers.repeatable import Repeatable

Closure = Callable[[], Tensor]
Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]

# Of this object alone, no part of a copy: what schedulers and scalers put on an optimizer, and memory used again.
_PASSING = {"step", "_opt_called", "_zero_grad_profile_name", "grad_scale", "found_inf", "_scratch", "_known"}

MANUAL = (
    "let the closure return the loss with its graph, without backward(), no_grad or detach "
    "(in Lightning: manual optimization, self.automatic_optimization = False)"
)


class Solver(Optimizer):
    """A `torch.optim.Optimizer` whose closure returns the loss and leaves differentiating to the solver.

    Which parameters a step moves is looked up at each step: all of the groups that require grad then.

    Example:
        >>> import torch
        >>> from solvers import Solver
        >>> class Descent(Solver):
        ...     @torch.no_grad()
        ...     def step(self, closure):
        ...         loss, gradients = self.evaluate(closure)
        ...         for p, gradient in gradients.items():
        ...             p -= self.defaults["lr"] * gradient
        ...         return loss
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> loss = Descent([x], {"lr": 0.5}).step(lambda: x.square().sum())
        >>> float(loss), x.tolist()
        (13.0, [0.0, 0.0])
    """

    differentiates = True  # the closure returns the loss with its graph, without backward()
    takes_complex = True  # as pairs of reals
    maximizes = False  # whether groups may have maximize=True

    def repeatable(self, closure: Closure) -> Repeatable:
        """The closure as one function, for a step that calls it more than once."""
        known = self.__dict__.setdefault("_known", weakref.WeakSet())
        return Repeatable(closure, self.leaves(), known)

    def leaves(self) -> list[Tensor]:
        """What a step may move: the parameters of all groups that require grad, as they stand now."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def evaluate(self, closure: Closure) -> tuple[Any, dict[Tensor, Tensor]]:
        """The loss, detached, and the gradients, made dense, of the parameters that it uses, from one call.

        `.grad` stays. A closure as torch's own optimizers have it, which calls `backward()`, gives the `.grad` that it
        has left, and its value as it is. Where `torch.distributed` runs, gradients that are taken here are averaged.

        Raises:
            TypeError: the closure returns no tensor.
            ValueError: the loss is no scalar, or has no graph to the parameters.
        """
        parameters = self.leaves()
        with torch.enable_grad(), _noticed_backward(parameters) as noticed:
            loss = closure()
        if noticed():
            value = loss.detach() if isinstance(loss, Tensor) else loss
            return value, {p: to_dense(p.grad) for p in parameters if p.grad is not None}
        check_loss(loss, differentiable=bool(parameters))
        given = {}
        if parameters:
            with torch.enable_grad(), explain_backward():
                found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
            given = {p: to_dense(g) for p, g in zip(parameters, found, strict=True) if g is not None}
        average_gradients(parameters, given)
        return loss.detach(), given

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, at any time. Raises `ValueError` for settings that are not possible."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except BaseException:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raises `ValueError` for a group that this solver cannot move, `TypeError` for shares of parameters."""
        name = type(self).__name__
        if any(hasattr(p, "placements") for p in group["params"]):
            raise TypeError(f"{name} takes whole parameters, not DTensors: train under DistributedDataParallel instead")
        if not self.takes_complex and any(p.is_complex() for p in group["params"]):
            raise ValueError(f"{name} takes real parameters: keep torch.view_as_real of complex ones")
        if group.get("maximize") and not self.maximizes:
            raise ValueError(f"{name} minimises: negate the loss, maximize=True is not possible")

    def __getstate__(self) -> dict[str, Any]:
        """All that makes a copy go on; hooks and the wrappers of schedulers stay behind, as in torch."""
        kept = vars(self).items()
        return {name: v for name, v in kept if name not in _PASSING and not name.startswith("_optimizer_")}


def check_loss(loss: Any, *, differentiable: bool = True) -> Tensor:
    """The loss that a closure has returned. Raises what `Solver.evaluate` does."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"the closure must return the loss as a tensor, not {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"the closure must return a scalar loss, not one of shape {tuple(loss.shape)}")
    if differentiable and not loss.requires_grad:
        raise ValueError(f"the closure's loss has no graph to the parameters: {MANUAL}")
    return loss


@contextmanager
def _noticed_backward(parameters: list[Tensor]) -> Iterator[Callable[[], bool]]:
    """Whether backward() has reached one of the parameters, or something else has set its `.grad`, in this block."""
    before = [p.grad for p in parameters]
    reached: list[Tensor] = []
    handles = [p.register_post_accumulate_grad_hook(reached.append) for p in parameters]

    def noticed() -> bool:
        new = (p.grad is not None and p.grad is not old for p, old in zip(parameters, before, strict=True))
        return bool(reached) or any(new)

    try:
        yield noticed
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def explain_backward() -> Iterator[None]:
    """Say so where a graph cannot be differentiated because the closure has done it already."""
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise RuntimeError(
            f"the closure called backward(), but this solver differentiates the loss: {MANUAL}"
        ) from error


def to_dense(gradient: Tensor) -> Tensor:
    """The gradient, or the dense form of a sparse one."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def check(**conditions: tuple[Any, bool]) -> dict[str, Any]:
    """The settings, each given as (value, whether it is possible). Raises `ValueError` for the first that is not."""
    for name, (value, possible) in conditions.items():
        if not possible:
            raise ValueError(f"{name}={value!r} is not possible")
    return {name: value for name, (value, _) in conditions.items()}
