"""Data, networks and the rows of the traces that the jobs of `runs.gauss_newton_conditioning` share. All in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from landscape.conditioning import Conditioning
from landscape.spectra import ConditionNumber
from probes import Field, Trace
from probes.digits import digits
from probes.sweep.jobs import JobContext
from runs.shared.data import fashion_mnist, mnist_5k

T = TypeVar("T")


def labelled(name: str, count: int | None = None, stride: int = 2) -> tuple[Tensor, Tensor]:
    """The first training images `(count, 1, rows, columns)` with labels: "digits" whole, others every `stride` pixels.

    "fashion" and "mnist" are picked from 28 x 28 pixels in [0, 1], without smoothing, as the authors do.
    """
    if name == "digits":
        x, y = digits().train
        return (x[:count] + 1) / 2, y[:count]
    x, y = {"fashion": fashion_mnist, "mnist": mnist_5k}[name]().train
    return x[:count, :, ::stride, ::stride].contiguous(), y[:count]


def pixels(name: str, count: int, stride: int = 4) -> Tensor:
    """The same images as rows `(count, d)` in float64, less the pixels that never change among them."""
    x = labelled(name, count, stride)[0].flatten(1).double()
    return x[:, (x != x[0]).any(dim=0)]


def white(x: Tensor) -> Tensor:
    """U V^T of the singular value decomposition of `(n, d)`, not centred: X^T X = I (X X^T = I when n < d).

    Directions without data must be gone before: their singular vectors would be invented (`ValueError`).
    """
    U, s, Vt = torch.linalg.svd(x, full_matrices=False)
    if float(s[-1]) <= max(x.shape) * torch.finfo(x.dtype).eps * float(s[0]):
        raise ValueError(f"data of shape {tuple(x.shape)} have no full rank, so they cannot be made white")
    return U @ Vt


def covariance(x: Tensor) -> Tensor:
    """(1/n) X^T X of `(n, d)`, not centred."""
    return x.T @ x / len(x)


def generator(job: JobContext, init: int) -> torch.Generator:
    """The random numbers of one initialisation."""
    return torch.Generator().manual_seed((job.seed + 1_000_003 * init) % 2**63)


def initialisations(job: JobContext, inits: int, places: Sequence[T]) -> Iterator[tuple[int, torch.Generator, T]]:
    """(number, its random numbers, place) for each place of each initialisation; tells the job's progress."""
    for init in range(inits):
        source = generator(job, init)
        for number, place in enumerate(places):
            yield init, source, place
            job.progress(init * len(places) + number, inits * len(places))


def kaiming(widths: list[int], source: torch.Generator) -> list[Tensor]:
    """Weights `(out, in)` of a linear network, Kaiming normal with gain 1."""
    return [
        torch.randn(out, inputs, generator=source, dtype=torch.float64) / math.sqrt(inputs)
        for inputs, out in pairwise(widths)
    ]


KEYS = {
    "init": "number of the initialisation",
    "width": "hidden units",
    "depth": "weight matrices",
    "factor": "width / hidden layers",
    "fixed": "1: the width stays",
    "white": "1: white data",
    "skip": "number in the list of skips",
    "beta": "of the skip",
    "slope": "of negative inputs",
    "made": "1: made to break b2",
    "b15": "estimate b1.5 of the paper",
    "b2": "estimate b2 of the paper",
    "filters": "of both layers",
    "kernel": "positions",
    "half": "1: half the covariance in place of its root",
    "norm": "0: none, 1: eval mode, 2: train mode",
    "fraction": "pruned",
    "rate": "step size",
    "epochs": "of SGD so far",
    "loss": "half square error of all samples",
}
MEASURED = {
    "kappa": Field((), "float64", "", "largest / smallest eigenvalue above the threshold"),
    "rank": Field((), "int64", "", "eigenvalues above the threshold"),
    "size": Field((), "int64", "", "eigenvalues"),
    "smallest": Field((), "float64", "", "smallest eigenvalue above the threshold"),
    "threshold": Field((), "float64", "", "absolute; below it an eigenvalue counts as zero"),
    "bound": Field((), "float64", "", "upper bound of kappa; inf states nothing, nan: there is none"),
    "loose": Field((), "float64", "", "cruder upper bound"),
}


class ConditionRows:
    """Condition numbers in a trace, one row per network, under those of `KEYS` that tell the networks apart."""

    def __init__(self, trace: Trace, *keys: str) -> None:
        self._trace, self._rows = trace, 0
        trace.declare("networks", {key: Field((), "float64", "", KEYS[key]) for key in keys} | MEASURED)

    def add(self, found: Conditioning | ConditionNumber, **keys: float) -> None:
        """A row."""
        assert found.eigenvalues is not None, "beyond the memory budget there is no exact kappa"
        bounds = {"bound": math.nan, "loose": math.nan}
        if isinstance(found, Conditioning):
            bounds = {"bound": found.bound, "loose": found.loose_bound}
            bounds |= {name.replace(".", ""): estimate for name, estimate in found.estimates.items()}
        copied = {name: getattr(found, name) for name in ("kappa", "rank", "smallest", "threshold")}
        self._trace.record("networks", self._rows, **keys, **copied, **bounds, size=len(found.eigenvalues))
        self._rows += 1
