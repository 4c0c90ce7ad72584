"""One row of a trajectory at a time: what the conditions of a function class need, at the parameters as they stand.

arXiv 2410.12455 takes the last iterate x_K of the same run for the projection onto the solutions, and for f_i the
mini-batch of the step; Definition 1 asks for all samples i at once, which `measure_samples` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from landscape.objective.batch import samples, split
from landscape.objective.objective import Objective
from landscape.regularity.trajectory import Array

Infimum = float | Literal["estimate"]

_DROPPING = (nn.modules.dropout._DropoutNd, nn.RNNBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class Row:
    """One inequality: the entries of a `Trajectory`.

    Attributes:
        inner: <grad f_k(x_k), x_k - x_K>.
        loss, final_loss, infimum: f_k(x_k), f_k(x_K), f_k^* (an upper bound of it where it was estimated).
        grad_norm, distance: ||grad f_k(x_k)||, ||x_k - x_K||.
    """

    inner: float
    loss: float
    final_loss: float
    infimum: float
    grad_norm: float
    distance: float


def measure(objective: Objective, end: Tensor, *, infimum: Infimum = 0.0) -> Row:
    """The row of an objective (all data, or `objective.on(batch)`) at its parameters as they stand.

    Dropout is off. Costs a gradient and a forward pass; with `infimum="estimate"` a minimisation on a copy besides.

    Args:
        end: x_K, `(n,)`.
        infimum: f^*, or "estimate".

    Raises:
        ValueError: an end of another length or with entries that are not finite.
    """
    objective.only_whole("a row of a trajectory")
    if end.shape != (objective.size,):
        raise ValueError(f"the end point has shape {tuple(end.shape)}, the parameters ({objective.size},)")
    end = end.to(device=objective.device, dtype=torch.float64)
    if not bool(torch.isfinite(end).all()):
        raise ValueError("the end point has entries that are not finite: that run has diverged")
    direction = objective.theta().double() - end
    with without_dropout(objective):
        loss, gradient = objective.value_and_gradient()
        with objective.at(end):
            final = objective.value()
        if infimum == "estimate":
            infimum = min(estimate_infimum(objective, [end]), loss, final)
    g = gradient.double()
    return Row(float(g @ direction), loss, final, float(infimum), float(g.norm()), float(direction.norm()))


def measure_samples(objective: Objective, end: Tensor, *, infimum: Infimum = 0.0) -> list[Row]:
    """A row for every sample of the data, each with its own loss: the condition for all i at one point.

    Samples without a loss term are left out. Costs a gradient and two forward passes of one sample each; models whose
    samples see each other (batch statistics in training mode) are another function on single samples. Those of several
    ranks come in the order in which their batches are dealt out, one of each rank in turn.

    Raises `TypeError` for a sharded model, and what `measure` raises.
    """
    objective.only_whole("a row of every sample")
    alone = objective.alone()

    def own() -> list[tuple[int, Row]]:
        return [(i, measure(alone.on([pair]), end, infimum=infimum)) for i, pair in _singles(objective)]

    every = [numbered for found in objective.gathered(own) for numbered in found]
    return [row for _, row in sorted(every, key=lambda numbered: numbered[0])]


def _singles(objective: Objective) -> Iterator[tuple[int, tuple[Any, Any]]]:
    """The samples of this rank with the numbers of their batches."""
    for batch in objective.sweep():
        if samples(batch) and not batch.padding:
            for single in split(batch, 1):
                with objective.measuring(), torch.no_grad():
                    weight = objective.evaluate(single).weight
                if weight:
                    yield batch.index, (single.inputs, single.targets)


@contextmanager
def without_dropout(objective: Objective) -> Iterator[None]:
    """Dropout layers (and those inside recurrent and attention layers) are off within the block."""
    active = [m for m in objective.module.modules() if isinstance(m, _DROPPING) and m.training]
    try:
        for m in active:
            m.training = False
        yield
    finally:
        for m in active:
            m.training = True


def estimate_infimum(objective: Objective, starts: Iterable[Tensor], *, iterations: int = 200) -> float:
    """The lowest value of f that L-BFGS reaches from the starts `(n,)` and from the parameters as they stand.

    An upper bound of inf f; the model is as before. Each start takes at most `iterations` steps (about as many
    gradients), fewer when it has converged. Raises `ValueError` for a start of another length.
    """

    def function(x: Array) -> tuple[float, Array]:
        theta = torch.from_numpy(x).to(device=objective.device)
        with objective.at(theta):
            value, gradient = objective.value_and_gradient()
        if not np.isfinite(value):
            return np.inf, np.zeros_like(x)
        return value, gradient.double().cpu().numpy()

    lowest = np.inf
    for start in [objective.theta(), *starts]:
        if start.shape != (objective.size,):
            raise ValueError(f"a start has shape {tuple(start.shape)}, the parameters ({objective.size},)")
        x = start.detach().double().cpu().numpy()
        found = minimize(function, x, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
        lowest = min(lowest, function(x)[0], float(found.fun))
    return float(lowest)
