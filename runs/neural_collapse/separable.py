"""The jobs of `runs.neural_collapse` on small problems: an MLP on separable data, and unconstrained features."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from landscape.collapse import CollapseStatistics
from probes.digits import CLASSES
from probes.sweep.jobs import Job, JobContext
from runs.neural_collapse.models import make_adam, make_optimizer, set_rate, step_schedule
from runs.shared.training import update

INPUTS, HIDDEN, SAMPLES = 50, 64, 100  # of the MLP; images of a class
PARTS = 5  # mini-batches of an epoch
LR = 1e-3
RULES = ("SGD", "Adam", "AdamW", "SignSGD", "SignSGDW")
DECAYS = (0.0005, 0.001, 0.005)
LONG = 1.0  # a decay with lr * decay * steps = 10, for what converges
FREE_RULES = ("Adam", "AdamW", "SGD")
FREE_RATES, FREE_DECAYS = (0.1, 1.0), (5e-4,)


def plan(quick: bool) -> list[Job]:
    """A job for each rule."""
    seeds, steps, every = (1, 1000, 20) if quick else (5, 10_000, 50)
    jobs = []
    for rule in RULES:
        decays = [*(DECAYS[-1:] if quick else DECAYS), *([LONG] if rule.endswith("W") else [])]
        settings = {"rule": rule, "decays": decays, "seeds": seeds, "steps": steps, "every": every}
        jobs.append(Job(f"separable-{rule}", separable, settings, "separable"))
    shape = {"samples": 500, "width": 64, "steps": 300} if quick else {"samples": 10_000, "width": 512, "steps": 300}
    given = {"rates": list(FREE_RATES), "decays": list(FREE_DECAYS)} | shape
    return jobs + [Job(f"free-{rule}", free, {"rule": rule, **given}, "free") for rule in FREE_RULES]


# -- an MLP on separable data --------------------------------------------------------------------------------


def separable(job: JobContext, rule: str, decays: list[float], seeds: int, steps: int, every: int) -> dict[str, Any]:
    """NC0 along training of 50-64-10 networks with ReLU, a column for each seed.

    The data are ten clusters N(e_k, 0.01 I). All seeds are trained at once, as one batch of matrices: every rule
    acts on each entry by itself, and so they do not meet.
    """
    runs = []
    for number, decay in enumerate(decays):
        generator = torch.Generator().manual_seed(job.seed)
        y = torch.arange(CLASSES * SAMPLES) % CLASSES
        x = torch.eye(CLASSES, INPUTS)[y] + 0.1 * torch.randn(seeds, len(y), INPUTS, generator=generator)
        weights = networks(seeds, generator)
        optimizer = rule_of(rule, weights, decay)
        looks, values = [], []
        for step in range(steps + 1):
            if step % every == 0:
                looks.append(step)
                values.append(torch.linalg.vector_norm(weights[-1].detach().sum(2), dim=1).tolist())
            if step % PARTS == 0:
                order = torch.randperm(len(y), generator=generator).chunk(PARTS)
            chosen = order[step % PARTS]
            update(optimizer, lambda c=chosen, x=x, w=weights, y=y: loss(x[:, c], y[c], w))  # type: ignore[misc]
        with torch.no_grad():
            right = (logits(x, weights).argmax(2) == y).float().mean(1)
        runs.append({"decay": decay, "steps": looks, "nc0": values, "accuracy": right.tolist()})
        job.progress(number + 1, len(decays))
    return {"rule": rule, "lr": LR, "runs": runs}


def networks(seeds: int, generator: torch.Generator) -> list[Tensor]:
    """Weights and biases of the hidden layer and weights of the head, uniform as torch has them, for all seeds."""
    shapes = ((INPUTS, HIDDEN), (1, HIDDEN), (HIDDEN, CLASSES))
    bounds = (INPUTS, INPUTS, HIDDEN)
    return [
        ((2 * torch.rand(seeds, *shape, generator=generator) - 1) / math.sqrt(bound)).requires_grad_()
        for shape, bound in zip(shapes, bounds, strict=True)
    ]


def logits(x: Tensor, weights: list[Tensor]) -> Tensor:
    """`(seeds, N, K)` of inputs `(seeds, N, INPUTS)`."""
    hidden, bias, head = weights
    return torch.relu(x @ hidden + bias) @ head


def loss(x: Tensor, y: Tensor, weights: list[Tensor]) -> Tensor:
    """The sum over seeds of the mean cross-entropy."""
    targets = y.expand(len(x), -1)
    return nn.functional.cross_entropy(logits(x, weights).transpose(1, 2), targets) * len(x)


def rule_of(rule: str, parameters: list[Tensor], decay: float) -> torch.optim.Optimizer:
    """The paper's signs are Adam without running means; SGD has no momentum here."""
    if rule == "SGD":
        return make_optimizer("SGD", parameters, LR, 0.0, decay)
    coupled, decoupled = (0.0, decay) if rule.endswith("W") else (decay, 0.0)
    means = (0.0, 0.0) if rule.startswith("Sign") else (0.9, 0.999)
    return make_adam(parameters, LR, means[0], coupled, decoupled, second=means[1])


# -- unconstrained features ----------------------------------------------------------------------------------


def free(
    job: JobContext, rule: str, rates: list[float], decays: list[float], samples: int, width: int, steps: int
) -> dict[str, Any]:
    """Weights and one free feature vector for each sample, mean cross-entropy, all of the data at each step."""
    y = torch.arange(samples) % CLASSES
    runs = []
    for lr in rates:
        for decay in decays:
            generator = torch.Generator().manual_seed(job.seed)
            features = torch.randn(samples, width, generator=generator) / math.sqrt(width)
            weight = (2 * torch.rand(CLASSES, width, generator=generator) - 1) / math.sqrt(width)
            features.requires_grad_()
            weight.requires_grad_()
            optimizer = make_optimizer(rule, [weight, features], lr, 0.9, decay)
            torch.set_flush_denormal(True)  # squares of vanishing gradients, which are slow
            for rate in step_schedule(lr, steps):
                set_rate(optimizer, rate)
                update(optimizer, lambda h=features, W=weight: nn.functional.cross_entropy(h @ W.T, y))  # type: ignore[misc]
            torch.set_flush_denormal(False)
            statistics = CollapseStatistics(CLASSES, width)
            statistics.update(features.detach(), y)
            statistics.update_agreement(features.detach(), y, weight.detach())
            found = statistics.metrics(weight.detach())
            kept = {key: float(getattr(found, key)) for key in ("nc0", "nc1", "nc2", "nc3", "accuracy")}
            runs.append({"lr": lr, "decay": decay, **kept})
            job.progress(len(runs), len(rates) * len(decays))
    return {"rule": rule, "samples": samples, "width": width, "runs": runs}
