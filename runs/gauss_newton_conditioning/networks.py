"""The jobs of `runs.gauss_newton_conditioning` on torch's modules: batch norm, a pruned ResNet, and training."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from landscape import Objective
from landscape.conditioning import gauss_newton, linear_network
from landscape.spectra import ConditionNumber
from probes import Field
from probes.digits import CLASSES, build_network, digits
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.gauss_newton_conditioning.data import ConditionRows, generator, images, initialisations, white
from runs.shared.networks import ResidualBlock
from runs.shared.training import half_square, one_hot, update

NORMS = ("none", "eval", "train")
BN_WIDTHS = (20, 40, 80, 160, 320)  # more parameters than the 1000 outputs
BN_NARROW = (10, 20, 40)  # fewer than the 5000 outputs
PRUNED = (0.0, 0.2, 0.4, 0.6, 0.8)


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    inits = 2 if quick else 5
    ample = {"samples": 30 if quick else 100, "inits": inits}
    many = {"samples": 60 if quick else 500, "inits": inits, "norms": 2}
    widths, narrow = (BN_WIDTHS[:2], (4, 6)) if quick else (BN_WIDTHS, BN_NARROW)
    less = {"fractions": list(PRUNED[::2] if quick else PRUNED), "samples": 16 if quick else 64}
    less["epochs"] = 2 if quick else 15
    steps = {"epochs": 20 if quick else 300, "every": 10 if quick else 15}
    return [
        *(Job(f"norm-{width}", batch_norm, {"width": width, **ample}) for width in widths),
        *(Job(f"many-{width}", batch_norm, {"width": width, **many}) for width in narrow),
        *(Job(f"pruning-{init}", pruning, less) for init in range(1 if quick else 4)),
        *(Job(f"training-{init}", training, steps) for init in range(1 if quick else 3)),
    ]


# -- batch norm ----------------------------------------------------------------------------------------------


def hidden(inputs: int, width: int, *, norm: bool) -> nn.Sequential:
    """One hidden layer of ReLU without biases, batch norm behind the ReLU or none."""
    behind = nn.BatchNorm1d(width) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(inputs, width, bias=False), nn.ReLU(), behind, nn.Linear(width, CLASSES, bias=False))


def batch_norm(job: JobContext, width: int, samples: int, inits: int, norms: int = len(NORMS)) -> dict[str, Any]:
    """kappa of the same weights without batch norm, with it in eval mode, and of the whole batch in train mode.

    In eval mode the running statistics are those of the measured samples: the initial ones would make it the
    identity. In train mode the samples share statistics, so J is that of all outputs of the one batch together.
    """
    x = images(samples)
    y = torch.zeros(len(x), CLASSES, dtype=torch.float64)
    with job.trace(width=width, samples=samples) as trace:
        rows = ConditionRows(trace, "width", "norm", "init")
        for init, source, (number, name) in initialisations(job, inits, list(enumerate(NORMS[:norms]))):
            model = hidden(x.shape[1], width, norm=name != "none").double()
            source.manual_seed(source.initial_seed())  # the same weights for all three
            for weight in (parameter for parameter in model.parameters() if parameter.ndim == 2):
                nn.init.kaiming_normal_(weight, generator=source)
            recalibrate(model, x)
            objective = Objective(model, nn.MSELoss(), (x, y), mode="train" if name == "train" else "eval")
            rows.add(gauss_newton(objective), width=width, norm=number, init=init)
    return {"width": width, "inputs": x.shape[1], "samples": samples}


def recalibrate(model: nn.Module, x: Tensor) -> None:
    """Set the running statistics of batch norm to those of `x`, and the model to eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over batches, of which there is one
    with torch.no_grad():
        model.train()(x)
    model.eval()


# -- pruning -------------------------------------------------------------------------------------------------


def resnet() -> nn.Module:
    """A ResNet of 5122 parameters for 8 x 8 images: 8, 8 and 16 channels."""
    stem = nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)
    return nn.Sequential(*stem, ResidualBlock(8, 8, 1, norm=True), ResidualBlock(8, 16, 2, norm=True), *tail)


def magnitude_masks(model: nn.Module, fraction: float) -> dict[str, Tensor]:
    """For each weight of two dimensions or more, 0 where its smallest entries are, that fraction of them, else 1.

    At initialisation all scales of batch norm are 1 and its shifts 0: magnitude says nothing there.
    """
    masks = {}
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            mask = torch.ones(weight.numel(), dtype=weight.dtype)
            mask[weight.detach().abs().flatten().argsort()[: round(fraction * weight.numel())]] = 0
            masks[name] = mask.reshape(weight.shape)
    return masks


class Masked(nn.Module):
    """weight = original * mask, so derivatives by pruned entries are zero."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, original: Tensor) -> Tensor:
        """The pruned weight."""
        return original * self.mask


def pruned_kappa(model: nn.Module, masks: dict[str, Tensor], x: Tensor, *, left_out: bool) -> ConditionNumber:
    """kappa of J J^T / n with the pruned parameters in J, at their value 0, or left out; recalibrated, eval mode."""
    model = copy.deepcopy(model).double()
    recalibrate(model, x)
    if left_out:
        for name, mask in masks.items():
            owner, _, own = name.rpartition(".")
            parametrize.register_parametrization(model.get_submodule(owner), own, Masked(mask.double()))
        model.eval()
    y = torch.zeros(len(x), CLASSES, dtype=torch.float64)
    return gauss_newton(Objective(model, nn.MSELoss(), (x, y), mode="eval"))


def pruning(job: JobContext, fractions: list[float], samples: int, epochs: int) -> dict[str, Any]:
    """One initialisation, pruned by several fractions: kappa then and after training, and the training loss."""
    x, labels = digits().train
    x, labels = x[:512], labels[:512]
    measured = x[:samples].double()
    size = 64
    per_epoch = len(x) // size
    with job.trace(samples=samples) as trace:
        rows = ConditionRows(trace, "fraction", "trained", "left_out")
        value = Field((), "float64", "loss", "mean over the epoch")
        trace.declare("loss", {"fraction": Field((), "float64", "", "pruned"), "value": value})
        for number, fraction in enumerate(fractions):
            model = build_network(resnet, job.seed)
            masks = magnitude_masks(model, fraction)
            with torch.no_grad():
                for name, mask in masks.items():
                    weight = model.get_parameter(name)
                    weight.mul_(mask)
                    weight.register_hook(lambda grad, mask=mask: grad * mask)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
            losses: list[float] = []
            for trained in (0, 1):
                if trained:
                    model.train()
                    for i, y in batches(x, labels, size, epochs * per_epoch, job.seed):
                        losses.append(update(optimizer, lambda i=i, y=y, m=model: nn.functional.cross_entropy(m(i), y)))  # type: ignore[misc]
                for left_out in (0, 1):
                    found = pruned_kappa(model, masks, measured, left_out=bool(left_out))
                    rows.add(found, fraction=fraction, trained=trained, left_out=left_out)
            for epoch in range(epochs):
                mean = sum(losses[epoch * per_epoch : (epoch + 1) * per_epoch]) / per_epoch
                trace.record("loss", number * epochs + epoch, fraction=fraction, value=mean)
            job.progress(number, len(fractions))
    return {"parameters": sum(p.numel() for p in model.parameters()), "samples": samples, "epochs": epochs}


# -- training ------------------------------------------------------------------------------------------------


def training(job: JobContext, epochs: int, every: int) -> dict[str, Any]:
    """Three layers 61-160-160-10 without biases, Xavier normal, SGD on white digits: kappa as it trains."""
    count, size, rate = 1000, 250, 0.05
    x = images()[:count]
    x = white(x) * len(x) ** 0.5  # so that the covariance is the identity
    y = one_hot(digits().train[1][:count]).double()
    shapes = (x.shape[1], 160, 160, CLASSES)
    layers = [nn.Linear(a, b, bias=False).double() for a, b in pairwise(shapes)]
    source = generator(job, 0)
    for layer in layers:
        nn.init.xavier_normal_(layer.weight, generator=source)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    per_epoch = count // size
    losses = []
    with job.trace(rate=rate, batch=size) as trace:
        rows = ConditionRows(trace, "epochs", "loss")
        for step, (i, t) in enumerate(batches(x, y, size, epochs * per_epoch + 1, job.seed)):
            if step % (every * per_epoch) == 0:
                with torch.no_grad():
                    losses.append(float(half_square(model(x), y)))
                found = linear_network([layer.weight for layer in layers])
                rows.add(found, epochs=step // per_epoch, loss=losses[-1])
            update(optimizer, lambda i=i, t=t: half_square(model(i), t))  # type: ignore[misc]
            job.progress(step, epochs * per_epoch)
    return {"widths": list(shapes), "first": losses[0], "last": losses[-1]}
