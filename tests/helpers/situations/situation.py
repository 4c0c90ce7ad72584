"""A situation, and its oracle: plain torch on the same model, or central differences of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import Objective


@dataclass
class Case:
    """An objective, and the same function written without it: `f()` -> the loss at the parameters as they stand.

    `parameters` are those of the objective in its order; None for all of its model's that require grad.
    """

    objective: Objective
    f: Callable[[], Tensor]
    parameters: Sequence[Tensor] | None = None

    def leaves(self) -> list[Tensor]:
        if self.parameters is not None:
            return list(self.parameters)
        return [p for p in self.objective.model.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Situation:
    """One row of the table.

    Attributes:
        group, name: where it stands, and what it is.
        make: the case; a refused one may raise here.
        check: the oracle: "double backward", "differences" (where double backward itself is wrong or not to be had).
        tolerance: relative, of value, gradient and product.
        refused: "" where the numbers are right, else the words of the line that refuses.
        needs: packages that it takes.
    """

    group: str
    name: str
    make: Callable[[], Case]
    check: Literal["double backward", "differences"] = "double backward"
    tolerance: float = 1e-8
    refused: str = ""
    needs: tuple[str, ...] = ()


@contextmanager
def plain() -> Iterator[None]:
    """Fused attention has no second derivative."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield


def direction(n: int, dtype: torch.dtype) -> Tensor:
    v = torch.randn(n, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    return v / v.norm()


def gradient(case: Case, **how: Any) -> list[Tensor]:
    return list(torch.autograd.grad(case.f(), case.leaves(), materialize_grads=True, **how))


def double_backward(case: Case, v: Tensor) -> tuple[float, Tensor, Tensor]:
    """f, its gradient and H v, in the order of the leaves."""
    leaves = case.leaves()
    with plain():
        value = case.f()
        slope = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
        flat = flatten(slope)
        product = torch.autograd.grad(flat @ v.to(flat), leaves, materialize_grads=True, allow_unused=True)
    return value.item(), flat.detach(), flatten(product)


def differences(case: Case, v: Tensor) -> tuple[float, Tensor, Tensor]:
    """The same, H v by central differences of the gradient at two steps, extrapolated (float64 models)."""
    leaves = case.leaves()
    pieces = [piece.reshape(p.shape) for piece, p in zip(v.split([p.numel() for p in leaves]), leaves, strict=True)]

    def at(step: float) -> Tensor:
        kept = [p.detach().clone() for p in leaves]
        try:
            with torch.no_grad():
                for p, piece in zip(leaves, pieces, strict=True):
                    p.add_(piece, alpha=step)
            with plain():
                return flatten(gradient(case))
        finally:
            with torch.no_grad():
                for p, was in zip(leaves, kept, strict=True):
                    p.copy_(was)

    with plain():
        value, slope = case.f().item(), flatten(gradient(case))
    first, second = ((at(h) - at(-h)) / (2 * h) for h in (1e-3, 5e-4))
    return value, slope, (4 * second - first) / 3


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])
