"""Data, networks and the rows of the traces that the jobs of `runs.gauss_newton_conditioning` share. All in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from landscape.conditioning import Conditioning
from landscape.spectra import ConditionNumber
from probes import Field, Trace
from probes.digits import digits
from runs.engine.jobs import JobContext


def images(count: int | None = None) -> Tensor:
    """The first training digits `(count, d)`, pixels in [0, 1], less the pixels that never change among them."""
    x = (digits().train[0].flatten(1).double()[:count] + 1) / 2
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


def kaiming(widths: list[int], source: torch.Generator) -> list[Tensor]:
    """Weights `(out, in)` of a linear network, Kaiming normal with gain 1."""
    return [
        torch.randn(out, inputs, generator=source, dtype=torch.float64) / math.sqrt(inputs)
        for inputs, out in pairwise(widths)
    ]


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
    """Condition numbers in a trace, one row per network, under the numbers that tell the networks apart."""

    def __init__(self, trace: Trace, **keys: str) -> None:
        self._trace, self._rows = trace, 0
        trace.declare("networks", {name: Field((), "float64", "", text) for name, text in keys.items()} | MEASURED)

    def add(self, found: Conditioning | ConditionNumber, **keys: float) -> None:
        """A row."""
        assert found.eigenvalues is not None, "beyond the memory budget there is no exact kappa"
        bounds = {"bound": math.nan, "loose": math.nan}
        if isinstance(found, Conditioning):
            bounds = {"bound": found.bound, "loose": found.loose_bound}
        self._trace.record(
            "networks",
            self._rows,
            **keys,
            kappa=found.kappa,
            rank=found.rank,
            size=len(found.eigenvalues),
            smallest=found.smallest,
            threshold=found.threshold,
            **bounds,
        )
        self._rows += 1
