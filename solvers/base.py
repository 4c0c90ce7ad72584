"""What all solvers share: how a step gets its loss and its gradients, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Closure = Callable[[], Tensor]
Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Solver(Optimizer):
    """A `torch.optim.Optimizer` whose closure returns the loss and leaves differentiating to the solver."""

    def __init__(self, params: Parameters, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)

    def evaluate(self, closure: Closure) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """The loss and the gradients of the parameters that it uses, from one call; `.grad` is not touched.

        Raises:
            TypeError: the closure returns no tensor.
            ValueError: the loss is no scalar, or has no graph to the parameters.
            RuntimeError: the closure has called `backward()` itself.
        """
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        with torch.enable_grad(), explained():
            loss = checked_loss(closure)
            found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
        return loss.detach(), {p: g for p, g in zip(parameters, found, strict=True) if g is not None}


def checked_loss(closure: Closure) -> Tensor:
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
def explained() -> Iterator[None]:
    """Differentiating a graph that the closure has used up says so."""
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise RuntimeError(
            "the closure called backward(): let it only return the loss, this solver differentiates it"
        ) from error


class FirstOrder(Solver):
    """A solver that moves by gradients alone: `step(closure)`, or `loss.backward(); step()` as usual.

    A subclass implements `_move(group, parameters, gradients, states)` for one group of parameters that have a
    gradient. Parameters without one stay where they are, weight decay included, as in torch.
    """

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *, loss: Tensor | float | None = None) -> Any:  # type: ignore[override]
        """One step; the loss at the point where it began: the closure's, or `loss` as it was given.

        Raises `ValueError` for both a closure and a loss, and for sparse gradients.
        """
        if closure is None:
            given = {p: p.grad for group in self.param_groups for p in group["params"] if p.grad is not None}
        elif loss is not None:
            raise ValueError("pass a closure or the loss, not both")
        else:
            loss, given = self.evaluate(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p in given]
            if any(given[p].is_sparse for p in parameters):
                raise ValueError(f"{type(self).__name__} takes no sparse gradients: use sparse=False in the embedding")
            if parameters:
                self._move(group, parameters, [given[p] for p in parameters], [self.state[p] for p in parameters])
        return loss

    def _move(
        self, group: Mapping[str, Any], parameters: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
    ) -> None:
        raise NotImplementedError


def check(**conditions: tuple[Any, bool]) -> None:
    """Raise `ValueError` for the first setting, given as (value, whether it is possible), that is not possible."""
    for name, (value, possible) in conditions.items():
        if not possible:
            raise ValueError(f"{name}={value!r} is not possible")


def buffers(states: list[dict[str, Any]], parameters: list[Tensor], name: str) -> list[Tensor]:
    """A state tensor of each parameter, zero at first."""
    for state, p in zip(states, parameters, strict=True):
        if name not in state:
            state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return [state[name] for state in states]


def with_decay(gradients: list[Tensor], parameters: list[Tensor], decay: float) -> list[Tensor]:
    """Gradients of loss + (decay / 2) |theta|^2; new tensors where there is a decay."""
    return list(torch._foreach_add(gradients, parameters, alpha=decay)) if decay else gradients
