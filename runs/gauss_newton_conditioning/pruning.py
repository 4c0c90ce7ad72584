"""The jobs of `runs.gauss_newton_conditioning` on a pruned ResNet: kappa and the loss along its training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from landscape.conditioning import gauss_newton
from landscape.spectra import ConditionNumber
from probes import Field
from probes.digits import CLASSES, build_network
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.gauss_newton_conditioning.data import ConditionRows, labelled
from runs.shared.networks import ResidualBlock
from runs.shared.training import update

PRUNED = (0.0, 0.2, 0.4, 0.6, 0.8)
THRESHOLD = 1e-7  # of the eigenvalues of J J^T, in the script of the paper


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    full = {"data": "fashion", "fractions": list(PRUNED), "images": 512, "measured": 128, "epochs": 15, "every": 5}
    short = {"data": "digits", "fractions": list(PRUNED[::2]), "images": 128, "measured": 16, "epochs": 2, "every": 2}
    return [Job(f"pruning-{init}", pruning, short if quick else full) for init in range(1 if quick else 5)]


def resnet() -> nn.Module:
    """A ResNet of three stages with one block each, of 8, 16 and 32 channels: 19,810 parameters."""
    stem = nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    stages = [ResidualBlock(a, b, stride, norm=True) for a, b, stride in ((8, 8, 1), (8, 16, 2), (16, 32, 2))]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def magnitude_masks(model: nn.Module, fraction: float) -> dict[str, Tensor]:
    """For each parameter, biases and batch norm included, 0 where its smallest entries are, that fraction, else 1."""
    masks = {}
    for name, parameter in model.named_parameters():
        mask = torch.ones(parameter.numel(), dtype=parameter.dtype)
        order = parameter.detach().abs().flatten().argsort(stable=True)
        mask[order[: round(fraction * parameter.numel())]] = 0
        masks[name] = mask.reshape(parameter.shape)
    return masks


def prune(model: nn.Module, fraction: float) -> None:
    """Set the smallest entries of each parameter to 0, where they stay: their gradients are 0 too."""
    with torch.no_grad():
        for name, mask in magnitude_masks(model, fraction).items():
            parameter = model.get_parameter(name)
            parameter.mul_(mask)
            parameter.register_hook(lambda grad, mask=mask: grad * mask)


def recalibrate(model: nn.Module, x: Tensor) -> None:
    """Set the running statistics of batch norm to those of `x`, and the model to eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over batches, of which there is one
    with torch.no_grad():
        model.train()(x)
    model.eval()


def pruned_kappa(model: nn.Module, x: Tensor) -> ConditionNumber:
    """kappa of J J^T / n over all parameters, pruned ones at their value 0; statistics of `x`, eval mode."""
    measured = copy.deepcopy(model)
    recalibrate(measured, x)
    y = torch.zeros(len(x), CLASSES, dtype=x.dtype)
    return gauss_newton(Objective(measured, nn.MSELoss(), (x, y), mode="eval"), threshold=THRESHOLD / len(x))


def pruning(
    job: JobContext, data: str, fractions: list[float], images: int, measured: int, epochs: int, every: int
) -> dict[str, Any]:
    """One initialisation, pruned by several fractions: kappa along training, and the training loss."""
    x, labels = labelled(data, images)
    per_epoch = len(x) // 64
    steps = epochs * per_epoch
    with job.trace(measured=measured) as trace:
        rows = ConditionRows(trace, "fraction", "epochs")
        value = Field((), "float64", "loss", "mean over the epoch")
        trace.declare("loss", {"fraction": Field((), "float64", "", "pruned"), "value": value})
        for number, fraction in enumerate(fractions):
            model = build_network(resnet, job.seed)
            prune(model, fraction)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
            losses: list[float] = []
            for step, (i, y) in enumerate(batches(x, labels, 64, steps + 1, job.seed)):
                if step % (every * per_epoch) == 0:
                    rows.add(pruned_kappa(model, x[:measured]), fraction=fraction, epochs=step // per_epoch)
                model.train()
                losses.append(update(optimizer, lambda i=i, y=y, m=model: nn.functional.cross_entropy(m(i), y)))  # type: ignore[misc]
                job.progress(number * steps + min(step, steps - 1), len(fractions) * steps)
            for epoch in range(epochs):
                mean = sum(losses[epoch * per_epoch : (epoch + 1) * per_epoch]) / per_epoch
                trace.record("loss", number * epochs + epoch, fraction=fraction, value=mean)
    return {"parameters": sum(p.numel() for p in model.parameters()), "measured": measured, "epochs": epochs}
