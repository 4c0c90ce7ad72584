"""The networks and data of arXiv 2602.16642: ResNet9 and VGG9 with batch norm, on images of 32 x 32.

The images are those of `runs.shared.data`, and CIFAR10 in its binary version. Digits of scikit-learn can take their
places, or random images, which cost as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from probes.digits import CLASSES, digits
from runs.neural_collapse.models import head
from runs.shared.data import Images, fashion_mnist, mnist
from runs.shared.data.places import files

SIZE = 32
RANDOM, DIGITS = "random", "digits"  # in the place of the data


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DataSet:
    """What a network is trained on.

    Attributes:
        read: images and labels, to train on and to test on; raises `UserError` where they are not.
        channels: of an image.
        images: to train on.
    """

    read: Callable[[], tuple[Pair, Pair]]
    channels: int
    images: int


def convolution(inputs: int, outputs: int, *, pool: bool = False) -> nn.Sequential:
    """3 x 3 with bias, batch norm, ReLU, and perhaps the maximum over 2 x 2."""
    layers = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x + self.inner(x)


def resnet9(channels: int) -> nn.Sequential:
    """6.6 million parameters, 512 features."""
    first = convolution(channels, 64), convolution(64, 128, pool=True), Residual(128)
    second = convolution(128, 256, pool=True), convolution(256, 512, pool=True), Residual(512)
    return nn.Sequential(*first, *second, nn.MaxPool2d(4), nn.Flatten(), head(512))


def vgg9(channels: int) -> nn.Sequential:
    """Six convolutions; what the paper has between them and the head is not said: here nothing, 1024 features."""
    widths = (channels, 64, 128, 512, 512, 256, 256)
    pools = (True, True, False, True, False, True)
    layers = (convolution(a, b, pool=pool) for a, b, pool in zip(widths, widths[1:], pools, strict=False))
    return nn.Sequential(*layers, nn.Flatten(), head(1024))


NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {"resnet9": resnet9, "vgg9": vgg9}


def load(name: str, stand_in: str = "") -> tuple[Pair, Pair]:
    """Images (N, channels, 32, 32), normalised by mean and deviation of those to train on, and labels; both sets.

    `stand_in`: `DIGITS` or `RANDOM` in place of the data. Raises `UserError` where these are not.
    """
    channels = DATA[name].channels
    if stand_in == RANDOM:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2048, channels, SIZE, SIZE, generator=generator)
        y = torch.randint(CLASSES, (2048,), generator=generator)
        return (x, y), (x[:128], y[:128])
    if stand_in == DIGITS:
        sets = digits()
        return _normalised(*((x.expand(-1, channels, -1, -1), y) for x, y in (sets.train, sets.test)))
    return _normalised(*DATA[name].read())


def _cifar10() -> tuple[Pair, Pair]:
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    get = "https://www.cs.toronto.edu/~kriz/cifar.html, binary version"
    found = files("CIFAR10", names, inside=["cifar-10-batches-bin"], get=get)
    return _cifar(found[:-1]), _cifar(found[-1:])


def _cifar(paths: list[Path]) -> Pair:
    rows = np.frombuffer(b"".join(path.read_bytes() for path in paths), np.uint8).reshape(-1, 3073)
    return torch.from_numpy(rows[:, 1:].copy()).reshape(-1, 3, SIZE, SIZE), torch.from_numpy(rows[:, 0].copy())


def _pairs(reader: Callable[[], Images]) -> Callable[[], tuple[Pair, Pair]]:
    return lambda: (reader().train, reader().test)


def _normalised(train: Pair, test: Pair) -> tuple[Pair, Pair]:
    over = (0, 2, 3)
    mean, deviation = train[0].float().mean(over)[:, None, None], train[0].float().std(over)[:, None, None]

    def of(pair: Pair) -> Pair:
        x = (pair[0].float() - mean) / deviation
        if x.shape[-1] != SIZE:
            x = nn.functional.interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=False)
        return x, pair[1].long()

    return of(train), of(test)


DATA = {
    "mnist": DataSet(_pairs(mnist), 1, 60_000),
    "fashion": DataSet(_pairs(fashion_mnist), 1, 60_000),
    "cifar10": DataSet(_cifar10, 3, 50_000),
}
