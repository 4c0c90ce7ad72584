"""Layers whose derivatives are wrong, each in the way that people meet."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FUSED = torch._weight_norm  # held here: what is held before a measurement is not replaced in it


class FusedWeightNorm(nn.Module):
    """A linear layer by torch's own weight normalisation, whose second derivative takes the norms for constants."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(outer, inner))
        self.g = nn.Parameter(torch.rand(outer, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _FUSED(self.v, self.g, 0))


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(np.asarray(g.detach().numpy() * (1 - np.tanh(x.detach().numpy()) ** 2)))


class OpaqueTanh(nn.Module):
    """tanh whose backward autograd cannot see: the gradient is right, second derivatives miss it."""

    def forward(self, x: Tensor) -> Tensor:
        return _Opaque.apply(x)


class StraightThrough(nn.Module):
    """Rounded to eighths, with the gradient of the identity."""

    def forward(self, x: Tensor) -> Tensor:
        return x + ((8 * x).round() / 8 - x).detach()


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return 0.4 * g


class ScaledGradient(nn.Module):
    """The identity, with 0.4 of its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return _Scale.apply(x)


WRONG = {
    "fused weight norm": lambda: FusedWeightNorm(5, 5),
    "opaque backward": OpaqueTanh,
    "straight-through": StraightThrough,
    "scaled gradient": ScaledGradient,
}


def network(kind: str, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """4-6-5-3, the wrong layer at "3"."""
    head = [nn.Linear(4, 6), activation(), nn.Linear(6, 5)]
    return nn.Sequential(*head, WRONG[kind](), activation(), nn.Linear(5, 3))
