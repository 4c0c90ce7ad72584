"""Small networks for the digits (images of 8 x 8) that several experiments train."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from probes.digits import CLASSES


def mlp(width: int, *, inputs: int = 64, bias: bool = True) -> nn.Sequential:
    """inputs-width-width-10 with ReLU; `bias`: of the last layer."""
    hidden = nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, CLASSES, bias=bias))


def strided_layers() -> list[nn.Module]:
    """Two 3 x 3 convolutions of stride 2 to 8 and 16 channels with ReLU: 64 features."""
    first = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()
    return [*first, nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()]


def pooled_cnn(first: int, second: int) -> nn.Module:
    """Two 3 x 3 convolutions to so many channels with ReLU, each with max-pooling behind it, and a linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, first), (first, second)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * second, CLASSES))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a shortcut: a 1 x 1 convolution where the channels change.

    `norm`: batch norm behind that one too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        self.body = nn.Sequential(*first, nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if norm:
                self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(outputs))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
