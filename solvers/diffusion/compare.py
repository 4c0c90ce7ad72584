"""How far two sets of paths are from each other: means in standard errors, and the ratio of their variances.

A slope of about 1 of a second moment over eta says nothing by itself: an SDE without diffusion has it too. What tells
is the centred variance: the ratio of the solver's to the SDE's tends to 1 with eta, and not for a wrong diffusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.diffusion.integrate import Paths


@dataclass(frozen=True)
class Difference:
    """One statistic of two sets of paths at their common times, `(T, ...)` each.

    Attributes:
        mean: the first's mean minus the second's, with its standard error `mean_stderr`.
        ratio: the first's variance over the second's, with its standard error `ratio_stderr`; nan where the second
            does not vary.
    """

    mean: Tensor
    mean_stderr: Tensor
    ratio: Tensor
    ratio_stderr: Tensor

    @property
    def z(self) -> Tensor:
        """The difference of means in standard errors; 0 where neither varies and both are equal."""
        return torch.where(self.mean == 0, 0.0, self.mean / self.mean_stderr)


@dataclass(frozen=True)
class Comparison:
    """Two sets of paths, statistic by statistic.

    Attributes:
        times: `(T,)`, those that both were recorded at.
        statistics: by name.
    """

    times: Tensor
    statistics: dict[str, Difference]


def compare(first: Paths, second: Paths) -> Comparison:
    """Statistics that both have, at the times that both have.

    Raises:
        ValueError: there is no such time.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, Quadratic, compare, discrete, integrate
        >>> sde = SGD(Quadratic(torch.tensor([1.0]), torch.tensor([1.0])), eta=0.1)
        >>> rng = torch.Generator().manual_seed(0)
        >>> solver = discrete(sde, torch.zeros(1), steps=40, paths=2000, generator=rng, every=20)
        >>> model = integrate(sde, torch.zeros(1), dt=0.05, steps=80, paths=2000, generator=rng, every=40)
        >>> found = compare(solver, model)
        >>> found.times.tolist(), bool((found.statistics["x"].ratio[-1] - 1).abs() < 0.3)  # variances agree
        ([0.0, 2.0, 4.0], True)
    """
    same = torch.isclose(first.times[:, None], second.times[None, :], rtol=1e-9, atol=1e-12)
    i, j = torch.nonzero(same, as_tuple=True)
    if len(i) == 0:
        raise ValueError("the two were recorded at different times: choose dt, every and eta so that some agree")
    differences = {}
    for name in first.statistics.keys() & second.statistics.keys():
        a, b = first.statistics[name], second.statistics[name]
        stderr = (a.mean_stderr[i].square() + b.mean_stderr[j].square()).sqrt()
        ratio = a.variance[i] / b.variance[j]
        relative = (a.variance_stderr[i] / a.variance[i]).square() + (b.variance_stderr[j] / b.variance[j]).square()
        differences[name] = Difference(a.mean[i] - b.mean[j], stderr, ratio, ratio * relative.sqrt())
    return Comparison(first.times[i], differences)


def weak_order(etas: Sequence[float], errors: Sequence[float]) -> float:
    """The slope of log |error| over log eta, by least squares. Raises `ValueError` for fewer than two of them.

    Example:
        >>> from solvers.diffusion import weak_order
        >>> round(weak_order([0.1, 0.05, 0.025], [0.4, 0.1, 0.025]), 3)
        2.0
    """
    if len(etas) < 2 or len(etas) != len(errors):
        raise ValueError(f"a slope needs two errors or more, one for each eta: {len(etas)} and {len(errors)} given")
    return float(np.polyfit(np.log(etas), np.log(np.abs(errors)), 1)[0])
