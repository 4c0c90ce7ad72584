"""Small problems that are solved to rounding, and solved anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def minimise(model: nn.Module, function: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> None:
    """Newton's method with dense derivatives, for a small model, to rounding; of function(forward, theta)."""
    parameters = list(model.parameters())
    shapes = [p.shape for p in parameters]
    sizes = [p.numel() for p in parameters]

    def at(v: Tensor) -> Tensor:
        pieces = [piece.reshape(shape) for piece, shape in zip(v.split(sizes), shapes, strict=True)]
        named = dict(zip((name for name, _ in model.named_parameters()), pieces, strict=True))
        return function(lambda x: torch.func.functional_call(model, named, (x,)), v)

    v = torch.cat([p.detach().reshape(-1) for p in parameters])
    for _ in range(60):
        g, H = torch.func.grad(at)(v), torch.func.hessian(at)(v)
        values, U = torch.linalg.eigh(H)
        step = U @ ((U.T @ g) / values.abs().clamp(min=1e-6))
        t = 1.0
        while at(v - t * step) > at(v) - 1e-4 * t * g @ step and t > 1e-6:
            t /= 2
        v = v - t * step
        if step.norm() < 1e-11:
            break
    with torch.no_grad():
        for p, piece in zip(parameters, v.split(sizes), strict=True):
            p.copy_(piece.reshape(p.shape))


def classes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy labels of three classes, of four features; other seeds are other samples of the same."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(count, 4, generator=g, dtype=torch.float64)
    scores = X @ torch.randn(4, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return X, (scores + torch.randn(count, 3, generator=g, dtype=torch.float64)).argmax(1)
