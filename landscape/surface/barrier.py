"""What lies between two networks on the straight line: the barrier (Frankle et al., arXiv 1912.05671, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.objective.running import uses_running_statistics
from landscape.surface.plane import chosen_statistics, vector
from landscape.surface.points import Points
from landscape.surface.values import Callback, Statistics, evaluate


@dataclass(frozen=True)
class Barrier:
    """f on the way from a to b.

    Attributes:
        t: `(points,)` float64, 0 at a and 1 at b.
        values: `(points,)` float64 on the host; nan where a callback has stopped before.
        height: max over t of f - ((1 - t) f(a) + t f(b)), at least 0; nan without the ends, and where f is nan on the
            way. Between the points it may be higher.
        error: rounding of the height.
        statistics: "keep" or "recompute".
        complete: every point has a value.
        evaluations: points evaluated; known ones cost nothing.
    """

    t: Tensor = field(repr=False)
    values: Tensor
    height: float
    error: float
    statistics: Statistics
    complete: bool
    evaluations: int


def barrier(
    objective: Objective,
    a: Tensor,
    b: Tensor,
    *,
    points: int = 25,
    statistics: Statistics | None = None,
    known: Tensor | None = None,
    callback: Callback | None = None,
) -> Barrier:
    """f on the straight line from a to b, `(n,)` each, and how far it rises above the chord.

    Args:
        statistics: of BatchNorm in eval mode. A vector has none of its own, so that "recompute" is the default: those
            of one pass over the data at each point, a and b included.
        known, callback: as in `plane`.

    Raises:
        ValueError: vectors of another shape, fewer than three points, or "keep" between different parameters of a
            network that reads running statistics.
        TypeError: a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import barrier
        >>> f = Objective(torch.nn.Linear(1, 1, bias=False), lambda w, _: ((w**2 - 1) ** 2).mean(), torch.ones(1, 1))
        >>> round(barrier(f, torch.tensor([-1.0]), torch.tensor([1.0])).height, 4)
        1.0
    """
    objective.only_whole("a barrier")
    a, b = vector(objective, a, "a"), vector(objective, b, "b")
    if points < 3:
        raise ValueError(f"a barrier needs at least three points, not {points}")
    chosen = between_statistics(objective, statistics, a, b)
    t = unit_interval(points)
    line = Points(torch.stack([1 - t, t], dim=1), [a, b])
    found = evaluate(objective, line, (points,), statistics=chosen, known=known, callback=callback)
    there = ~found.values.isnan() | found.complete
    there[[0, -1]] = True
    high, error = height(objective, t[there], found.values[there])
    return Barrier(t, found.values, high, error, chosen, found.complete, found.evaluations)


def unit_interval(points: int) -> Tensor:
    """0 to 1 in even steps, float64; the middle of an odd number is 1/2."""
    return torch.arange(points, dtype=torch.float64) / (points - 1)


def between_statistics(objective: Objective, statistics: Statistics | None, a: Tensor, b: Tensor) -> Statistics:
    """As `chosen_statistics`. Raises `ValueError` for "keep" where buffers could belong to one of both at most."""
    if statistics == "keep" and uses_running_statistics(objective) and not torch.equal(a, b):
        raise ValueError(
            "the network reads running statistics (BatchNorm in eval mode), and those in its buffers belong to one "
            'network at most: statistics="recompute" takes those of each point, mode="train" those of each batch'
        )
    return chosen_statistics(objective, statistics, elsewhere=True)


def height(objective: Objective, t: Tensor, values: Tensor) -> tuple[float, float]:
    """How far f rises above the chord between its ends, and the rounding of that; nan where f is."""
    if bool(values.isnan().any()):  # nobody knows how high
        return float("nan"), float("nan")
    above = values - ((1 - t) * values[0] + t * values[-1])
    return max(0.0, float(above.max())), 2 * objective.rounding * float(values.abs().max())
