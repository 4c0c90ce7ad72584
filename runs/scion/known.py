"""A loss whose constants are known: f(x) = mean_j log(1 + exp(-x_j)) in the ball of the largest entry, from 0.

L = 1/4, rho = sqrt(d), and mu >= 1 / (2 log 2) where no entry is negative; f* = 0 lies at infinity. A gradient has
Gaussian noise, E ||g - grad f||_2^2 = sigma^2 = d s^2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from probes.sweep.jobs import JobContext
from solvers import Scion
from solvers.first_order.batch_rule import Constants, Settings

D, NOISE, RADIUS, C = 20, 0.02, 30.0, 2 / 3
CONSTANTS = Constants(L=0.25, mu=1 / (2 * math.log(2)), rho=math.sqrt(D), sigma=NOISE * math.sqrt(D))
MOMENTA, LENGTHS = (0.03, 0.1, 0.5), (200, 2000)


def value(x: Tensor) -> Tensor:
    """f of each row."""
    return softplus(-x).mean(dim=-1)


def gradient(x: Tensor) -> Tensor:
    """Of f at each row."""
    return -torch.sigmoid(-x) / x.shape[-1]


def measure(job: JobContext, draws: int) -> list[dict[str, Any]]:
    """For each momentum and number of steps, means over `draws` runs: f at the end, and by step the dual norm of what
    the running mean is off by.
    """
    rows = []
    with job.trace(draws=draws):
        for number, (momentum, steps) in enumerate((a, k) for a in MOMENTA for k in LENGTHS):
            settings = Settings(steps, 1, C / steps, momentum)
            rows.append({"momentum": momentum, "steps": steps} | run(settings, draws, job.seed + number))
            job.progress(number + 1, len(MOMENTA) * len(LENGTHS))
    return rows


def run(settings: Settings, draws: int, seed: int) -> dict[str, Any]:
    """One setting: `loss` at the end, `error` by step, and how far Lemma 1 was from being broken (`room`, >= 0)."""
    source = torch.Generator().manual_seed(seed % 2**63)
    points = [torch.zeros(D, dtype=torch.float64, requires_grad=True) for _ in range(draws)]
    groups = [{"params": points}]
    solver = Scion(groups, settings.lr, momentum=1.0, scale=RADIUS, norm="sign", constrained=True)
    errors, room = [], math.inf
    for k in range(settings.steps):
        x = torch.stack([p.detach() for p in points])
        exact = gradient(x)
        given = exact + NOISE * torch.randn(x.shape, generator=source, dtype=torch.float64)
        for p, g in zip(points, given, strict=True):
            p.grad = g
        solver.step()
        solver.param_groups[0]["momentum"] = settings.momentum  # the first running mean is the first gradient
        mean = torch.stack([solver.state[p]["mean"] for p in points])
        errors.append(float((mean - exact).abs().sum(dim=1).mean()))
        moved = torch.stack([p.detach() for p in points])
        length = float((moved - x).abs().max())
        inside = RADIUS - float(moved.abs().max()) - (1 - settings.lr) ** (k + 1) * RADIUS / 2
        room = min(room, 2 * settings.lr * RADIUS - length, inside)
    return {"loss": float(value(moved).mean()), "error": errors, "room": room}
