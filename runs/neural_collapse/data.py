"""The images of `runs.neural_collapse`: balanced classes of Fashion-MNIST at 14 x 14 pixels, or digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probes.digits import CLASSES, digits
from runs.shared.data import fashion_mnist

PER_CLASS = 80  # the paper's definitions take classes to be balanced
TESTED = 1000

Pair = tuple[Tensor, Tensor]


def images(data: str) -> tuple[Pair, Pair]:
    """Images `(N, 1, side, side)`, normalised by mean and deviation of those to train on, and labels; then others.

    `data`: "fashion", the first eighty of each class and the first thousand to test on, each pixel the mean of four;
    or "digits", as many of each class. Raises `UserError` where the images are not.
    """
    if data == "digits":
        sets = digits()
        train, test = sets.train, sets.test
    else:
        found = fashion_mnist()
        train, test = found.train, (found.test[0][:TESTED], found.test[1][:TESTED])
    kept = torch.cat([(train[1] == k).nonzero().flatten()[:PER_CLASS] for k in range(CLASSES)])
    x, y = train[0][kept], train[1][kept]
    held = test[0]
    if data != "digits":
        x, held = nn.functional.avg_pool2d(x, 2), nn.functional.avg_pool2d(held, 2)
    mean, deviation = x.mean(), x.std()
    return ((x - mean) / deviation, y), ((held - mean) / deviation, test[1])
