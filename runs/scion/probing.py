"""What the rule's constants are along a run: L, mu, rho and sigma as arXiv 2603.21191 estimates them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from landscape.norms import dual_norms
from landscape.sharpness import layer_constants
from probes.sweep.jobs import JobContext
from probes.trace.layout import Field
from runs.scion.training import HEAD, RADIUS, Setup, Step, split, train
from solvers.first_order.batch_rule import Settings

LOOKS = 20  # at all four constants, and as many at the variance
NORMS = [("spectral", RADIUS), ("rms", RADIUS)] * 2 + [("sign", HEAD), ("rms", RADIUS)]
CONSTANTS = ("loss", "dual", "L", "batch_L", "rho", "sigma", "distance")


def follow(
    job: JobContext, settings: dict[str, float], seeds: int, setup: dict[str, Any], images: int, batch: int
) -> list[dict[str, Any]]:
    """A run for each seed, with `step`, `seen` and `CONSTANTS` at `LOOKS` moments on so many images in such batches.

    Beside these `pairs`, (loss, dual norm) of every tenth step's own batch, and `variance` at three of the moments: of
    the gradient of batches by their size, for random batches and for `sorted` ones, each of images of one class.
    """
    made, runs = Setup(**setup), []
    of = Settings(**settings)
    with job.trace(**setup) as trace:
        trace.declare("constants", {name: Field() for name in ("seed", "seen", *CONSTANTS)})
        for seed in range(seeds):
            looker = Looker(made, images, batch, of.steps, job.seed + seed)
            train(made, [of], job.seed + seed, looker)
            for row in looker.rows:
                found = {name: row[name] for name in ("seen", *CONSTANTS)}
                trace.record("constants", seed * LOOKS + looker.rows.index(row), seed=seed, **found)
            runs.append({"rows": looker.rows, "pairs": looker.pairs, "variance": looker.variances})
            job.progress(seed + 1, seeds)
    return runs


class Looker:
    """Called ahead of each step of a run."""

    def __init__(self, setup: Setup, images: int, batch: int, steps: int, seed: int) -> None:
        x, y = split(setup.data).train
        self.order = torch.randperm(len(x), generator=torch.Generator().manual_seed((seed + 1) % 2**63))[:images]
        self.data, self.batch, self.seed = (x[self.order], y[self.order]), batch, seed
        self.at = {round((i + 1) * (steps - 1) / LOOKS) for i in range(LOOKS)}
        self.last, self.sizes = max(self.at), [8 * 2**i for i in range(7) if 8 * 2**i <= images // 8]
        self.moments = {sorted(self.at)[i] for i in (0, LOOKS // 2, LOOKS - 1)}
        self.rows: list[dict[str, float]] = []
        self.pairs: list[tuple[float, float]] = []
        self.variances: list[dict[str, Any]] = []
        self.before: Tensor | None = None

    def __call__(self, step: Step, model: nn.Module) -> None:
        """Look, where it is time."""
        if step.number % 10 == 0:
            own = Objective(model, nn.CrossEntropyLoss(), (step.inputs, step.labels))
            loss, gradient = own.value_and_gradient()
            self.pairs.append((loss, float(dual_norms(own.split(gradient), NORMS).sum())))
        if step.number in self.at:
            x, y = self.data
            batches = list(zip(x.split(self.batch), y.split(self.batch), strict=True))
            objective = Objective(model, nn.CrossEntropyLoss(), batches)
            found = layer_constants(objective, NORMS, self.before)
            self.rows.append({"seen": step.seen} | {name: getattr(found, name) for name in CONSTANTS})
        if step.number in self.moments:
            self._variances(step, model)
        if step.number + 1 in self.at:
            self.before = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def _variances(self, step: Step, model: nn.Module) -> None:
        x, y = self.data
        found: dict[str, Any] = {"seen": step.seen}
        for kind, order in (("random", torch.arange(len(y))), ("sorted", y.argsort(stable=True))):
            found[kind] = {str(b): _variance(model, x[order], y[order], b) for b in self.sizes}
        self.variances.append(found)


def _variance(model: nn.Module, x: Tensor, y: Tensor, size: int) -> float:
    """Of the gradient over batches of that size: the mean square distance from their mean, summed over entries."""
    parameters, count = list(model.parameters()), len(y) // size
    total, square = [torch.zeros_like(p, dtype=torch.float64) for p in parameters], 0.0
    for inputs, labels in zip(x.split(size)[:count], y.split(size)[:count], strict=True):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        for sum_, g in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sum_ += g
            square += float(g.double().square().sum())
    mean = sum(float((t / count).square().sum()) for t in total)
    return (square / count - mean) * count / (count - 1)
