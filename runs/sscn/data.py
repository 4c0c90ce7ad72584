"""Features `(N, n)`, each centred and of unit standard deviation, with labels 0 and 1 or targets, in float64.

"pairs" is of gisette's kind, which was made from the same two digits of MNIST: pixels and products of pairs of pixels,
2,500 in all, without its features that say nothing. "madelon" comes from the generator of that data set in
scikit-learn. "wide" and "square" are random, "tiny" is for the first step of a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runs.shared.data import leukemia, mnist_5k, nci60

Array = NDArray[np.float64]
Labelled = tuple[Array, Array]
SHAPES = {"wide": (44, 7129), "square": (1200, 1000), "tiny": (20, 60)}
PAIRS = 2500  # features of "pairs": as many of gisette are made so
KIND = "MELANOMA"  # of NCI60, against all others


def standardise(X: Any) -> Array:
    """Each feature centred, of unit standard deviation; those that are constant are left out."""
    X = np.asarray(X, dtype=np.float64)
    X = X - X.mean(0)
    spread = X.std(0)
    kept = spread > 1e-12 * max(float(np.abs(X).max(initial=0.0)), 1e-300)
    if not kept.any():
        raise ValueError("every feature is constant")
    return np.asarray(X[:, kept] / spread[kept])


def read(path: Path) -> Labelled:
    """Standardised features and labels 0 and 1 of a file in LIBSVM's format, dense.

    Raises `ValueError` for a file that is none, or that has not exactly two labels.
    """
    from sklearn.datasets import load_svmlight_file

    try:
        X, y = load_svmlight_file(str(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not in LIBSVM's format: {error}") from error
    labels = np.unique(y)
    if len(labels) != 2:
        raise ValueError(f"{path} has {len(labels)} different labels: logistic regression needs two")
    return standardise(X.toarray()), (y == labels[1]).astype(np.float64)


def _fours_and_nines() -> Labelled:
    """1,000 images, and which are nines; pixels that are the same in all are left out."""
    found = mnist_5k()
    x, y = (torch.cat(parts) for parts in zip(found.train, found.test, strict=True))
    chosen = (y == 4) | (y == 9)
    pixels = x[chosen].flatten(1).double()
    return pixels[:, pixels.std(0) > 0].numpy(), (y[chosen] == 9).double().numpy()


def _mnist() -> Labelled:
    pixels, y = _fours_and_nines()
    return standardise(pixels), y


def _pairs() -> Labelled:
    pixels, y = _fours_and_nines()
    rng, made = np.random.default_rng(0), dict[tuple[int, int], Array]()
    while pixels.shape[1] + len(made) < PAIRS:
        i, j = sorted(rng.choice(pixels.shape[1], 2, replace=False).tolist())
        both = pixels[:, i] * pixels[:, j]
        if both.std() > 0:
            made[i, j] = both
    return standardise(np.column_stack([pixels, *made.values()])), y


def _nci60() -> Labelled:
    found = nci60()
    return standardise(found.x.numpy()), (found.y == found.classes.index(KIND)).double().numpy()


def _leukemia() -> Labelled:
    found = leukemia()
    return standardise(found.x.numpy()), found.y.double().numpy()


def _two_classes(name: str) -> Labelled:
    from sklearn.datasets import load_breast_cancer, load_digits

    X, y = load_digits(return_X_y=True) if name == "digits" else load_breast_cancer(return_X_y=True)
    return standardise(X), np.asarray(y % 2, dtype=np.float64)


def _diabetes() -> Labelled:
    """The ten measurements of 442 patients, their squares and products; the target standardised."""
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import PolynomialFeatures

    X, y = load_diabetes(return_X_y=True)
    made = PolynomialFeatures(2, include_bias=False).fit_transform(X)
    return standardise(made), np.asarray((y - y.mean()) / y.std())


def _madelon() -> Labelled:
    """2,000 points, 32 clusters at the corners of a cube in 5 dimensions, 15 combinations of these, 480 of noise."""
    from sklearn.datasets import make_classification

    X, y = make_classification(2000, 500, n_informative=5, n_redundant=15, n_clusters_per_class=16, random_state=0)
    return standardise(X), np.asarray(y, dtype=np.float64)


def _random(name: str) -> Labelled:
    """Normal features, labels of a noisy linear rule."""
    samples, n = SHAPES[name]
    rng = np.random.default_rng((0, 0))
    X = standardise(rng.standard_normal((samples, n)))
    noise = 0.5 * rng.standard_normal(samples)
    return X, (X @ rng.standard_normal(n) / math.sqrt(n) + noise > 0).astype(np.float64)


DATA: dict[str, Callable[[], Labelled]] = {
    "mnist": _mnist,
    "pairs": _pairs,
    "nci60": _nci60,
    "leukemia": _leukemia,
    "diabetes": _diabetes,
    "madelon": _madelon,
    **{name: partial(_two_classes, name) for name in ("digits", "cancer")},
    **{name: partial(_random, name) for name in SHAPES},
}
