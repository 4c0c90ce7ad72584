"""Jobs: how far steps of K-FAC and Shampoo move each layer's outputs, by width and parametrisation (arXiv 2312.12226).

A network without biases, 64-n-n-10 with tanh, on one batch of digits. Its layers are h1 = W1 x, h2 = W2 tanh(h1) and
h3 = W3 tanh(h2), their derivatives d_l = dloss/dh_l. In the maximal update parametrisation the entries of W1 and W2
have the variance 1 / inputs, those of W3 that of a layer n / n0 times as wide: they are of size 1 / n, and so are those
of d2 and d1. Then for a fixed batch, as n grows, sums of d d^T and of a a^T have eigenvalues of the sizes

    layer    |a|^2    |d|^2    K-FAC's block    L and R of Shampoo     lr of K-FAC    lr of Shampoo
    first      1       1/n          1/n                1/n                  1             n^(1/2)
    second     n       1/n           1                  1                   1                1
    last       n        1            n                  n                   1             n^(-1/2)

and a damping keeps its share of them only if it goes along. The moves follow: D = B^-1 G A^-1 takes the activation a of
the batch to B^-1 d (a^T A^-1 a), where the bracket has size 1 and B^-1 d the norm 1 / |d|: entries of size 1 in every
layer. Shampoo's D has singular values of size 1, hence |D a| = |a|, spread over the entries of the output: n^(-1/2), 1
and n^(1/2), which the step size makes up for. The standard parametrisation has one step size, one damping, and the
variance 1 / n in W3: then entries of d1 and d2 have the size n^(-1/2), and K-FAC moves the layers by n^(-1/2), n^(-1/2)
and 1, Shampoo by n^(-1/2), 1 and n^(1/2), as far as damping is small: blocks have sizes 1, n and n there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Objective
from probes.digits import CLASSES, build_network, digits
from probes.sweep.jobs import Job, JobContext
from solvers import KFACDescent, Shampoo

WIDTHS, SEEDS = (64, 128, 256, 512, 1024), 5
STEPS, IMAGES = 5, 64
LAYERS = ("first", "second", "last")
RATE = {"kfac": 0.1, "shampoo": 0.1}  # at the smallest width, where both fit the batch in a few steps
DAMPING = {"kfac": 1e-2, "shampoo": 1e-2}
MU_RATE = {"kfac": (0.0, 0.0, 0.0), "shampoo": (0.5, 0.0, -0.5)}  # powers of n / n0, by layer
MU_DAMPING = (-1.0, 0.0, 1.0)
NONE = (0.0, 0.0, 0.0)
# By parametrisation: powers of the standard deviation of the last layer, of step sizes, of dampings.
PARAMETRISATIONS: dict[str, Callable[[str], tuple[float, tuple[float, ...], tuple[float, ...]]]] = {
    "mu": lambda solver: (-0.5, MU_RATE[solver], MU_DAMPING),
    "standard": lambda solver: (0.0, NONE, NONE),
    "constant-damping": lambda solver: (-0.5, MU_RATE[solver], NONE),
    "standard-damping": lambda solver: (0.0, NONE, (0.0, 1.0, 1.0)),  # standard, damping in proportion to the blocks
}


def plan(quick: bool) -> list[Job]:
    """One job for each solver and width."""
    settings = {"seeds": 2 if quick else SEEDS, "steps": STEPS}
    return [
        Job(f"widths-{solver}-{width}", moves, {"solver": solver, "width": width} | settings, "widths")
        for solver in RATE
        for width in (WIDTHS[:2] if quick else WIDTHS)
    ]


def moves(job: JobContext, solver: str, width: int, seeds: int, steps: int) -> dict[str, Any]:
    """By parametrisation and seed, after each step: mean |h - h at the start| of each layer; and the losses."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in PARAMETRISATIONS}
    for seed in range(seeds):
        for i, name in enumerate(PARAMETRISATIONS):
            job.progress(seed * len(found) + i, seeds * len(found))
            found[name].append(trained(solver, name, width, steps, job.seed + seed))
    return {"width": width, "runs": found}


def trained(solver: str, parametrisation: str, width: int, steps: int, seed: int) -> dict[str, Any]:
    """A network's moves after each step, `(steps, layers)`, and the loss before each and at the end."""
    x, y = batch(seed)
    last, rates, dampings = PARAMETRISATIONS[parametrisation](solver)
    ratio = width / WIDTHS[0]
    model = network(width, last, seed)
    made = make(
        solver,
        Objective(model, nn.CrossEntropyLoss(), (x, y)),
        [RATE[solver] * ratio**power for power in rates],
        [DAMPING[solver] * ratio**power for power in dampings],
    )
    start = outputs(model, x)
    moved, losses = [], []
    for _ in range(steps):
        losses.append(float(made.step(lambda: F.cross_entropy(model(x), y))))
        moved.append([float((h - h0).abs().mean()) for h, h0 in zip(outputs(model, x), start, strict=True)])
    return {"moves": moved, "losses": [*losses, float(F.cross_entropy(model(x), y).detach())]}


def make(solver: str, objective: Objective, rates: list[float], dampings: list[float]) -> KFACDescent | Shampoo:
    """The solver with a step size and damping for each layer, without momentum and clip."""
    if solver == "kfac":
        groups = {
            name: {"lr": lr, "damping": damping}
            for name, lr, damping in zip(objective.names, rates, dampings, strict=True)
        }
        return KFACDescent(objective, groups=groups, curvature="gauss-newton", momentum=0.0, clip=None, every=1)
    parts = zip(objective.leaves(), rates, dampings, strict=True)
    return Shampoo([{"params": [p], "lr": lr, "eps": eps} for p, lr, eps in parts], RATE[solver], momentum=0.0)


def network(width: int, last: float, seed: int) -> nn.Sequential:
    """64-n-n-10 with tanh; the last layer's entries are (n / n0)^last times as large as 1 / sqrt(n)."""

    def make() -> nn.Sequential:
        sizes = (64, width, width, CLASSES)
        layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)]
        with torch.no_grad():
            for layer, power in zip(layers, (0.0, 0.0, last), strict=True):
                layer.weight.normal_(std=(width / WIDTHS[0]) ** power / math.sqrt(layer.in_features))
        return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])

    found = build_network(make, seed)
    assert isinstance(found, nn.Sequential)
    return found


def outputs(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """h1, h2, h3 without a graph."""
    found = []
    with torch.no_grad():
        for module in model:
            x = module(x)
            if isinstance(module, nn.Linear):
                found.append(x)
    return found


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """So many images, less the mean image, and labels, drawn by the seed."""
    x, y = digits().train
    x = x.flatten(1)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    return (x - x.mean(dim=0))[chosen], y[chosen]
