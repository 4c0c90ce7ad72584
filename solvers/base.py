"""What all solvers share: how a step gets its loss and its gradients, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Closure = Callable[[], Tensor]
Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Solver(Optimizer):
    """A `torch.optim.Optimizer` whose closure returns the loss and leaves differentiating to the solver.

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

    def evaluate(self, closure: Closure) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """The loss and the gradients, made dense, of the parameters that it uses, from one call; `.grad` stays.

        Raises:
            TypeError: the closure returns no tensor.
            ValueError: the loss is no scalar, or has no graph to the parameters.
            RuntimeError: the closure has called `backward()` itself.
        """
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        with torch.enable_grad(), explain_backward():
            loss = closure_loss(closure)
            found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
        return loss.detach(), {p: to_dense(g) for p, g in zip(parameters, found, strict=True) if g is not None}


def closure_loss(closure: Closure) -> Tensor:
    """What the closure returns, with its graph. Raises what `Solver.evaluate` does."""
    loss = closure()
    if not isinstance(loss, Tensor):
        raise TypeError(f"the closure must return the loss as a tensor, not {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"the closure must return a scalar loss, not one of shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("the closure's loss has no graph: compute it from the parameters, without no_grad or detach")
    return loss


@contextmanager
def explain_backward() -> Iterator[None]:
    """Say so where a graph cannot be differentiated because the closure has done it already."""
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise RuntimeError(
            "the closure called backward(): let it only return the loss, this solver differentiates it"
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
