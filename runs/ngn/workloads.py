"""The networks of `runs.ngn` with their data: the smallest workload of arXiv 2508.15071, and others for a CPU.

Each function returns an `Objective` on the data to train on, and another on data to test on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from landscape import Objective
from probes.digits import digits
from runs.shared.data import Images, english, fashion_mnist, mnist_5k, standardised
from runs.shared.networks import mlp
from runs.shared.training import Data
from runs.shared.transformers import ByteTransformer, windows

Pair = tuple[Objective, Objective]
WIDTH, WINDOW = 48, 64  # of the transformer, and the bytes that it sees
TRAINED, TESTED = 1024, 128  # windows of text


def _pair(model: nn.Module, train: Data, test: Data) -> Pair:
    objective = Objective(model, nn.CrossEntropyLoss(), train)
    return objective, objective.on(test)


@lru_cache(maxsize=1)
def _standardised(read: Callable[[], Images]) -> tuple[Data, Data]:
    """Read once."""
    found = read()
    return standardised(found.train, found.test)


def fashion_mlp() -> Pair:
    """784-100-100-10 on all of Fashion-MNIST."""
    return _pair(mlp(100, inputs=784), *_standardised(fashion_mnist))


def mnist_mlp() -> Pair:
    """784-100-100-10 on 4,000 images of MNIST, tested on 1,000."""
    return _pair(mlp(100, inputs=784), *_standardised(mnist_5k))


def digits_mlp() -> Pair:
    """64-100-100-10 on the digits of scikit-learn."""
    return _pair(mlp(100), digits().train, digits().test)


def english_transformer() -> Pair:
    """Two causal blocks on windows of bytes of English, those to test on drawn from the same text."""
    count = TRAINED + TESTED
    x, y = windows(english().encode()[: count * WINDOW + 1], WINDOW)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    train, test = order[:TRAINED], order[TRAINED:]
    return _pair(ByteTransformer(WIDTH, WINDOW), (x[train], y[train]), (x[test], y[test]))
