"""The surface itself: f on a plane or a line through parameter space, beside its quadratic model.

Every value is f over all of the objective's data, not an estimate. The model is f + g.d + d.Hd / 2 at the centre: where
the two part, second order ends.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.objective.running import recomputed, running_on, uses_running_statistics
from landscape.operators.hessian import Hessian
from landscape.operators.linear import ROUNDINGS
from landscape.precision import accurate
from landscape.surface.points import grid
from landscape.surface.values import Callback, Spread, Statistics, evaluate


@dataclass(frozen=True)
class Surface:
    """f on a grid. All tensors are float64 on the host; on a line there is one direction only.

    Attributes:
        x: `(points,)`, coordinates along the first direction.
        y: `(points,)`, along the second; None on a line.
        values: `(points, points)`, `values[i, j]` = f(centre + x[i] d1 + y[j] d2); `(points,)` on a line. nan where a
            callback has stopped before.
        quadratic: f + g.d + d.Hd / 2 at the same points, from the derivatives at the centre; nan without them.
        gradient: `(2,)`, the slope along each direction at the centre.
        curvature: `(2, 2)`, d_i^T H d_j at the centre.
        curvature_error: `(2, 2)`, of each entry: rounding and noise of the products, and their asymmetry.
        statistics: "keep" or "recompute".
        complete: every point has a value.
        evaluations: points evaluated, trials included; known ones cost nothing.
        matvecs: Hessian products made.
        way: how points were evaluated, "point by point" or "vmap".
        note: why there is no quadratic model; "" else.
    """

    x: Tensor = field(repr=False)
    y: Tensor | None = field(repr=False)
    values: Tensor = field(repr=False)
    quadratic: Tensor = field(repr=False)
    gradient: Tensor
    curvature: Tensor
    curvature_error: Tensor
    statistics: Statistics
    complete: bool
    evaluations: int
    matvecs: int
    way: str
    note: str = ""


def plane(
    objective: Objective,
    directions: Tensor,
    *,
    span: float = 1.0,
    points: int = 51,
    centre: Tensor | None = None,
    statistics: Statistics | None = None,
    known: Tensor | None = None,
    callback: Callback | None = None,
    spread: Spread | None = None,
) -> Surface:
    """f on a grid of `points` x `points` on the plane through the centre.

    Points are evaluated from coarse to fine, in chunks; an interrupted run that is given its values as `known` ends
    with the same bits as one that was not.

    Args:
        directions: `(n, 2)`, used as given.
        span: x and y reach from -span to span.
        centre: `(n,)`, in the parameters' order; None for the parameters as they stand.
        statistics: of BatchNorm in eval mode. "keep": those in the buffers, at every point. "recompute": of one pass
            over the data at each point (the quadratic model takes those of the centre, held fixed). None: "recompute"
            where such a network is measured around another centre than its own parameters, which the buffers do not
            belong to, else "keep".
        known: values of an earlier run of the same surface, nan where there are none; they are not evaluated again.
        callback: `callback(done, total, values)` after each chunk; True stops with what there is.
        spread: evaluates chunks in other processes, see `landscape.surface.values.Spread`.

    Raises:
        ValueError: directions, centre or known values of another shape, known values that f does not have, a span or
            number of points that is no grid.
        TypeError: a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import plane
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (2 ** 0.5 * torch.eye(2), torch.zeros(2, 1)))
        >>> surface = plane(f, torch.eye(2), points=3, centre=torch.zeros(2))  # f = x^2 + y^2
        >>> surface.values.round(decimals=3).tolist()
        [[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]
    """
    return _surface(objective, directions, 2, span, points, centre, statistics, known, callback, spread)


def line(
    objective: Objective,
    directions: Tensor,
    *,
    span: float = 1.0,
    points: int = 51,
    centre: Tensor | None = None,
    statistics: Statistics | None = None,
    known: Tensor | None = None,
    callback: Callback | None = None,
    spread: Spread | None = None,
) -> Surface:
    """f along one direction `(n,)` or `(n, 1)`; everything else as in `plane`, with y None and values `(points,)`.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import line
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> line(f, torch.ones(1), span=2.0, points=5, centre=torch.zeros(1)).values.tolist()
        [4.0, 1.0, 0.0, 1.0, 4.0]
    """
    columns = torch.as_tensor(directions)
    columns = columns[:, None] if columns.ndim == 1 else columns
    return _surface(objective, columns, 1, span, points, centre, statistics, known, callback, spread)


def _surface(
    objective: Objective,
    directions: Tensor,
    k: int,
    span: float,
    points: int,
    centre: Tensor | None,
    statistics: Statistics | None,
    known: Tensor | None,
    callback: Callback | None,
    spread: Spread | None,
) -> Surface:
    objective.only_whole("a surface")
    if not (span > 0 and math.isfinite(span)) or points < 2:
        raise ValueError(f"a grid has a positive span and at least two points a side, not {span} and {points}")
    D = torch.as_tensor(directions).detach().to(objective.device, objective.dtype)
    if D.shape != (objective.size, k):
        raise ValueError(f"directions must have shape ({objective.size}, {k}), not {tuple(D.shape)}")
    here = objective.theta()
    origin = here if centre is None else vector(objective, centre, "centre")
    chosen = chosen_statistics(objective, statistics, not torch.equal(origin, here))
    x = torch.linspace(-span, span, points, dtype=torch.float64)
    if points % 2:  # the rounding of linspace would move the centre
        x[points // 2] = 0.0
    y = x.clone() if k == 2 else None
    found = evaluate(
        objective,
        grid(x, y, origin, D),
        (points,) * k,
        statistics=chosen,
        known=known,
        callback=callback,
        spread=spread,
    )
    model = _model(objective, origin, D, chosen)
    return Surface(
        x,
        y,
        found.values,
        model.on(x, y),
        model.gradient,
        model.curvature,
        model.error,
        chosen,
        found.complete,
        found.evaluations,
        model.matvecs,
        found.way,
        model.note,
    )


def vector(objective: Objective, theta: Tensor, name: str) -> Tensor:
    """`(n,)` in the objective's dtype on its device. Raises `ValueError` for another shape."""
    given = torch.as_tensor(theta).detach().to(objective.device, objective.dtype)
    if given.shape != (objective.size,):
        raise ValueError(f"{name} must have shape ({objective.size},), not {tuple(given.shape)}")
    return given


def chosen_statistics(objective: Objective, statistics: Statistics | None, elsewhere: bool) -> Statistics:
    """What is asked for; else "recompute" where running statistics would be used that belong to another point."""
    if statistics not in (None, "keep", "recompute"):
        raise ValueError(f'statistics is "keep" or "recompute", not {statistics!r}')
    if not uses_running_statistics(objective):
        return "keep"  # there are none
    return statistics or ("recompute" if elsewhere else "keep")


@dataclass(frozen=True)
class _Quadratic:
    """f + g.d + d.Hd / 2 along the directions."""

    value: float
    gradient: Tensor
    curvature: Tensor
    error: Tensor
    matvecs: int
    note: str = ""

    def on(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Its values on the grid."""
        g, H = self.gradient, self.curvature
        along = g[0] * x + 0.5 * H[0, 0] * x**2
        if y is None:
            return self.value + along
        across = g[1] * y + 0.5 * H[1, 1] * y**2
        return self.value + along[:, None] + across[None, :] + H[0, 1] * torch.outer(x, y)


def _model(objective: Objective, centre: Tensor, D: Tensor, statistics: Statistics) -> _Quadratic:
    k = D.shape[1]
    with ExitStack() as stack:
        stack.enter_context(objective.at(centre))
        if statistics == "recompute":
            stack.enter_context(running_on(objective, recomputed(objective)))
        value, g = objective.value_and_gradient()
        slopes = (accurate(D).T @ accurate(g)).cpu()
        A = Hessian(objective)
        try:
            HD = A @ D
        except RuntimeError as failure:  # the values stand by themselves
            none = torch.full((k, k), torch.nan, dtype=torch.float64)
            return _Quadratic(value, slopes, none, none, A.matvecs, f"no second derivatives: {failure}")
        finally:
            A.release()
        H = A.inner(D, HD)
        lengths = torch.outer(*(torch.linalg.vector_norm(t, dim=0, dtype=torch.float64).cpu() for t in (D, HD)))
        unit = ROUNDINGS * torch.finfo(objective.dtype).eps + A.noise
        error = unit * torch.maximum(lengths, lengths.T) + (H - H.T).abs() / 2
        return _Quadratic(value, slopes, (H + H.T) / 2, error, A.matvecs)
