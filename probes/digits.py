"""The demo's two problems: an MLP and a small CNN on scikit-learn's handwritten digits (1797 images of 8 x 8).

`probes.demo:mlp` and `probes.demo:cnn` are what `landscape probe --problem` takes; the data are part of the
scikit-learn distribution, nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 10
_TEST = 450
# The split is a property of the data set here, not of a run: a checkpoint probed later must meet the same images.
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) in [-1, 1] and labels (N,), 1347 to train on and 450 to test."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@lru_cache(maxsize=1)
def digits() -> Digits:
    """The data, split the same way in every process."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    x = torch.from_numpy(np.asarray(images, dtype=np.float32)[order] / 8.0 - 1.0).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(np.asarray(labels, dtype=np.int64)[order])
    return Digits((x[_TEST:], y[_TEST:]), (x[:_TEST], y[:_TEST]))


def mlp_network() -> nn.Module:
    """64-16-10 with tanh, 1210 parameters: small enough that a dense matrix can check everything."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def cnn_network() -> nn.Module:
    """Two 3 x 3 convolutions of stride 2 and a linear layer: 1210 parameters as well, so ranks are exact."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp_network, "cnn": cnn_network}


def build_network(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose initial weights depend on the seed alone; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def accuracy(network: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Share of images that the network classifies correctly."""
    x, y = data
    with torch.no_grad():
        return float((network(x).argmax(dim=1) == y).double().mean())
