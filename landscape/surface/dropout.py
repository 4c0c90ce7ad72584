"""Dropout stability: what f is when a share of the units of each hidden layer is dropped.

Networks that lose little by it are connected by a low path (Kuditipudi et al., arXiv 1906.06247, definition 1 and
theorem 1): the rest of the units, rescaled, does the work of all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.randomness import generator_and_seed
from landscape.spectra.results import Estimate
from landscape.statistics import mean_stderr
from landscape.surface.plane import chosen_statistics
from landscape.surface.points import Points
from landscape.surface.units.trace import Group, groups
from landscape.surface.values import Callback, Statistics, evaluate


def dropout_stability(
    objective: Objective,
    share: float,
    *,
    samples: int = 16,
    statistics: Statistics | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Estimate[float]:
    """The mean of f over random subnetworks, with its standard error.

    In each, of every hidden layer a share of the units (at least one stays) is dropped, and the others are scaled by
    size / (units that stay), which is 1 / (1 - share) where that many can be dropped. Units of a hidden layer are
    neurons, channels or heads whose values one layer makes and others take up; those on a residual stream, which
    several layers write to, stay.

    Args:
        share: in [0, 1).
        samples: subnetworks; each costs one evaluation of f. `matvecs` of the result counts them.
        statistics: running statistics as in `plane`; None keeps those in the buffers.
        callback: as in `plane`.

    Raises:
        ValueError: a share or number of samples out of range, no hidden layer.
        TypeError: a module that there is no rule for, which is named; a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import dropout_stability
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.ones(4)):  # either unit alone, doubled, does what both do
        ...     print(dropout_stability(f, 0.5).value, f.value())
        4.0 4.0
    """
    objective.only_whole("dropout stability")
    if not 0.0 <= share < 1.0 or samples < 1:
        raise ValueError(f"share lies in [0, 1) and samples is at least 1, not {share} and {samples}")
    hidden = [group for group in groups(objective) if len(group.written) == 1 and group.read]
    if not hidden:
        raise ValueError("the model has no hidden layer whose units could be dropped")
    generator, seed = generator_and_seed(generator)
    chosen = chosen_statistics(objective, statistics, elsewhere=False)
    theta = objective.theta()
    thinned = [_thinned(objective, theta, hidden, share, generator) for _ in range(samples)]
    points = Points(torch.eye(samples, dtype=torch.float64), thinned)
    found = evaluate(objective, points, (samples,), statistics=chosen, callback=callback)
    mean, stderr = mean_stderr(found.values[~found.values.isnan()])
    error = (
        float(stderr) if share and samples > 1 else objective.rounding * abs(float(mean)) if not share else float("inf")
    )
    return Estimate(float(mean), error, found.evaluations, found.complete, seed)


def _thinned(
    objective: Objective, theta: Tensor, hidden: list[Group], share: float, generator: torch.Generator
) -> Tensor:
    """Weights that take up units are scaled, by 0 for those that are dropped: the units make what they made."""
    pieces = objective.unflatten(theta.clone())
    for group in hidden:
        dropped = min(group.size - 1, round(share * group.size))
        scale = torch.full((group.size,), group.size / (group.size - dropped))
        order = torch.randperm(group.size, generator=generator, device=generator.device).cpu()
        scale[order[:dropped]] = 0.0
        for use in group.read:
            piece = pieces[use.name]
            entries = scale.repeat(use.outer).repeat_interleave(use.inner).to(piece)
            piece *= entries.reshape([-1 if d == use.axis else 1 for d in range(piece.ndim)])
    return objective.flatten(pieces)
