"""Quadratics as models, and what measuring must leave as it was."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from torch import Tensor, nn

from landscape import Objective


class Quadratic(nn.Module):
    """Parameters a, b, c of which f = (c0 + theta^T A theta) / 2 is made."""

    def __init__(self, A: Tensor, theta: Tensor, offset: float = 0.0) -> None:
        super().__init__()
        third = len(theta) // 3
        self.a = nn.Parameter(theta[:third].clone())
        self.b = nn.Parameter(theta[third : 2 * third].clone())
        self.c = nn.Parameter(theta[2 * third :].clone())
        self.register_buffer("A", A)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        theta = torch.cat([self.a, self.b, self.c])
        return 0.5 * (theta @ self.A @ theta + self.offset)


def quadratic(A: Tensor, theta: Tensor, offset: float = 0.0, **options) -> Objective:
    model = Quadratic(A, theta, offset)
    data = (torch.zeros(1, 1), torch.zeros(1))
    return Objective(model, lambda f, _: f, data, count=lambda *_: 1.0, **options)


def positive(n: int, seed: int = 0, low: float = 0.3) -> Tensor:
    """A float64 matrix with eigenvalues in [low, 1]."""
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=g)).Q
    A = (Q * torch.linspace(low, 1.0, n, dtype=torch.float64)) @ Q.T
    return 0.5 * (A + A.T)


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Unchanged:
    """Everything that a measurement must leave as it was, to compare with afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = self.state()

    def state(self) -> dict[str, object]:
        return {
            "parameters": [p.detach().clone() for p in self.model.parameters()],
            "storages": [p.data_ptr() for p in self.model.parameters()],
            "grads": [None if p.grad is None else p.grad.clone() for p in self.model.parameters()],
            "buffers": [b.clone() for b in self.model.buffers()],
            "flags": [p.requires_grad for p in self.model.parameters()],
            "modes": [m.training for m in self.model.modules()],
            "torch": torch.get_rng_state(),
            "numpy": copy.deepcopy(np.random.get_state()[1]),
            "python": random.getstate(),
        }

    def check(self) -> None:
        after = self.state()
        for name, before in self.before.items():
            assert same(before, after[name]), name


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
