"""The networks of `runs.second_order.heterogeneity`: each with its data, and the blocks that are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from landscape import BlockDiagonal, Hessian, Objective
from probes.digits import CLASSES
from runs.shared.transformers import ByteTransformer, Data, ViT, images, text

DEPTH, WIDTH = 4, 32  # linear layers of the MLP


@dataclass(frozen=True)
class Case:
    """A network before it is drawn, its data, and training.

    Attributes:
        batch: samples of a step.
        shown: samples that curvature is measured on.
        attention: query, key and value are blocks of their own.
    """

    make: Callable[[], nn.Module]
    data: Callable[[], Data]
    batch: int
    shown: int
    attention: bool = False


def cnn() -> nn.Module:
    """Four 3 x 3 convolutions with ReLU, the mean over pixels, a linear layer; weights after He et al., as in a VGG."""
    layers: list[nn.Module] = []
    for inputs, channels, stride in ((1, 12, 1), (12, 12, 1), (12, 16, 2), (16, 16, 1)):
        convolution = nn.Conv2d(inputs, channels, 3, stride, 1)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        layers += [convolution, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Scaled(nn.Module):
    """c W x, whose weights start c times smaller: the same function, and c^2 times the curvature in W."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (2.0 / inputs) ** 0.5 / scale)
        self.scale = scale

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.scale * nn.functional.linear(x, self.weight)


def scaled_mlp(scale: float) -> nn.Module:
    """Four linear layers with ReLU between them, multiplied by scale and 1 / scale in turn."""
    sizes = [64, *[WIDTH] * (DEPTH - 1), CLASSES]
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(DEPTH):
        layers += [Scaled(sizes[i], sizes[i + 1], scale if i % 2 == 0 else 1 / scale), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def case(name: str) -> Case:
    """`cnn`, `vit`, `text` (a transformer on bytes), or `mlp-SCALE`."""
    if name.startswith("mlp-"):
        return Case(lambda: scaled_mlp(float(name.removeprefix("mlp-"))), images, 64, 128)
    return {
        "cnn": Case(cnn, images, 64, 128),
        "vit": Case(ViT, images, 64, 128, attention=True),
        "text": Case(ByteTransformer, text, 16, 32, attention=True),
    }[name]


def blocks(name: str, objective: Objective) -> BlockDiagonal:
    """The Hessian's blocks of matrices and kernels, without norms, biases and positions."""
    kept = [n for n in objective.names if n.endswith("weight") and objective.model.get_parameter(n).ndim > 1]
    return BlockDiagonal(Hessian(objective).restrict(kept), "parameter", heads=1 if case(name).attention else None)
