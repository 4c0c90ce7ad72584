"""The condition numbers of two linear convolutions, with and without the root of the covariance."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from runs.findings.finding import Finding, Seen, number
from runs.gauss_newton_conditioning.jobs import FILTERS, KERNELS, SAMPLES, toeplitz

INITS = 60

Table = dict[tuple[int, int], float]


def measure() -> Seen:
    """Geometric means of kappa over initialisations, by filters and kernel size, both ways."""
    root, halved = (_table(scale) for scale in (1 / SAMPLES, 1 / (4 * SAMPLES**2)))
    rows = [
        (f"{way}, {count} filters", *(number(found[count, size]) for size in KERNELS))
        for way, found in (("root", root), ("half", halved))
        for count in FILTERS
    ]
    again = _more_filters_worse(halved) and _larger_kernels_better(halved) and not _more_filters_worse(root)
    return Seen(("", *(f"kernel {size}" for size in KERNELS)), rows, again)


def _table(second: float) -> Table:
    """kappa of (1/n) S S^T (x) I + `second` I (x) T^T T, of white data: the covariance is I / n."""
    return {(count, size): _kappa(count, size, second) for count in FILTERS for size in KERNELS}


def _kappa(count: int, size: int, second: float) -> float:
    logs = []
    for init in range(INITS):
        generator = torch.Generator().manual_seed(init)
        kernels = _normal(generator, count, 1, size), _normal(generator, count, count, size)
        logs.append(math.log(toeplitz(*kernels, SAMPLES * second).kappa))
    return math.exp(sum(logs) / INITS)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Kaiming's with gain 1."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[1] * shape[2])


def _more_filters_worse(found: Table) -> bool:
    return all(found[a, size] < found[b, size] for a, b in pairwise(FILTERS) for size in KERNELS)


def _larger_kernels_better(found: Table) -> bool:
    return all(found[n, a] > found[n, b] for n in FILTERS for a, b in pairwise(KERNELS))


FINDING = Finding(
    "convolutions",
    "arXiv 2411.02139 (Zhao, Singh, Lucchi 2024), figure and code on two linear convolutions",
    "more filters raise κ, larger kernels lower it",
    "that is so with half the covariance in the second term, where its root belongs; with the root more filters lower "
    "κ",
    measure,
)
