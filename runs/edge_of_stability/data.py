"""What the jobs of `runs.edge_of_stability` train: images and clusters, tanh networks, the two losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from probes.digits import CLASSES, build_network, digits
from runs.shared.data import fashion_mnist
from runs.shared.training import Data, half_square, one_hot

INPUTS = 64  # of the clusters

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"square": half_square, "entropy": nn.functional.cross_entropy}


def images(data: str, count: int | None = None) -> Data:
    """The first training images of Fashion-MNIST or of the digits, and their labels.

    Flat, less the mean image; those of Fashion-MNIST over the deviation of all pixels together.
    """
    x, y = (digits() if data == "digits" else fashion_mnist()).train
    x, y = x[:count].flatten(1), y[:count]
    x = x - x.mean(dim=0)
    return (x if data == "digits" else x / x.std()), y


def clusters(classes: int, count: int, seed: int) -> Data:
    """As many points of 64 coordinates around one centre a class: data that are nothing but classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, INPUTS, generator=generator)
    y = torch.arange(count) % classes
    x = centres[y] + 0.5 * torch.randn(count, INPUTS, generator=generator)
    return x - x.mean(dim=0), y


def network(inputs: int, width: int, outputs: int = CLASSES) -> nn.Module:
    """Two hidden layers of tanh: twice differentiable, so the Hessian is the whole second order."""
    layers: list[nn.Module] = []
    for a, b in pairwise((inputs, width, width, outputs)):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def start(inputs: int, width: int, outputs: int = CLASSES, *, scale: float = 1.0, seed: int) -> nn.Module:
    """A network with torch's first weights times `scale`, which depend on the seed alone."""
    model = build_network(lambda: network(inputs, width, outputs), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def targets(loss: str, y: Tensor) -> Tensor:
    """What a loss compares the outputs with."""
    return one_hot(y) if loss == "square" else y


def odd(y: Tensor) -> Tensor:
    """+1 for odd labels, -1 for even ones: targets of a single output, as the theory of SGD's minima has it."""
    return (2.0 * (y % 2) - 1.0).unsqueeze(1)
