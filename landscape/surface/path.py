"""A low path between two networks, trained on the objective's data (Garipov et al., arXiv 1802.10026).

The path's inner nodes theta are trained to lower the mean of f(phi_theta(t)) over t in [0, 1] (equation 2): a Bezier
curve (equation 4) or a chain of straight lines (equation 3). A gradient at phi(t) reaches node m times its coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.objective.running import batch_statistics, of_whole_batches, recomputed, running_on
from landscape.operators.hessian import Hessian
from landscape.spectra.callbacks import Callback, RunningEstimate
from landscape.spectra.eigsh import eigsh
from landscape.spectra.results import Eigenpairs
from landscape.surface.barrier import between_statistics, height, unit_interval
from landscape.surface.plane import chosen_statistics, vector
from landscape.surface.points import Points
from landscape.surface.values import Statistics, evaluate

Kind = Literal["bezier", "polygon"]

# Adam's decay rates (Kingma and Ba, arXiv 1412.6980)
_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-12
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # t of successive steps: any number of them in a row covers [0, 1] evenly


@dataclass(frozen=True)
class Path:
    """A path between two networks.

    Attributes:
        t: `(points,)` float64, 0 at a and 1 at b.
        values: `(points,)` float64 on the host.
        height: max over t of f - ((1 - t) f(a) + t f(b)), at least 0.
        nodes: `(m, n)` in the objective's dtype on its device, a first and b last: control points of the Bezier curve,
            corners of the polygon.
        kind: "bezier" or "polygon".
        error: rounding of the height.
        straight: the height before training, of the straight line.
        steps: gradients made in training.
        complete: the callback has not stopped it.
        statistics: "keep" or "recompute".
    """

    t: Tensor = field(repr=False)
    values: Tensor
    height: float
    nodes: Tensor = field(repr=False)
    kind: Kind
    error: float
    straight: float
    steps: int
    complete: bool
    statistics: Statistics

    def at(self, t: float | Tensor) -> Tensor:
        """`(n,)`, or `(len(t), n)`: where the path is at t in [0, 1]."""
        where = torch.as_tensor(t, dtype=torch.float64)
        found = _points(self.kind, list(self.nodes), where.reshape(-1)).rows(range(where.numel()))
        return found if where.ndim else found[0]


def path(
    objective: Objective,
    a: Tensor,
    b: Tensor,
    kind: Kind = "bezier",
    *,
    bends: int = 1,
    steps: int = 200,
    lr: float = 0.1,
    points: int = 25,
    statistics: Statistics | None = None,
    callback: Callback | None = None,
) -> Path:
    """A path from a to b, `(n,)` each, whose inner nodes are trained so that f is low on it.

    Each step is one of Adam with the gradient of f over all of the data at one t; the step size falls to zero along a
    cosine. Norm layers that read running statistics take those of each batch in training, and those of one pass over
    the data at each point where f is measured. No random number is drawn.

    Args:
        bends: inner nodes.
        steps: of training; each costs a gradient.
        lr: of the first step, in units of the root mean square of the entries of b - a.
        points: that f is measured at in the end, and on the straight line.
        callback: `callback(step, steps, f)` after each step; True ends the training.

    Raises:
        ValueError: vectors of another shape, a and b equal, an option that there is not; statistics as in `barrier`.
        TypeError: a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import path
        >>> ring = lambda w, _: (w.square().sum(dim=-1) - 1).square().mean()  # 0 on a circle
        >>> f = Objective(torch.nn.Linear(1, 2, bias=False), ring, torch.ones(1, 1))
        >>> found = path(f, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        >>> found.straight > 0.2 and found.height < 0.01
        True
    """
    objective.only_whole("a path")
    if kind not in ("bezier", "polygon"):
        raise ValueError(f'kind is "bezier" or "polygon", not {kind!r}')
    if bends < 1 or steps < 0 or points < 3 or not lr > 0:
        raise ValueError(f"bends, lr and points must be positive, not {bends}, {lr} and {points}")
    a, b = vector(objective, a, "a"), vector(objective, b, "b")
    scale = float((b - a).square().mean(dtype=torch.float64).sqrt())
    if not scale:
        raise ValueError("a and b are the same: there is no path between them")
    chosen = between_statistics(objective, statistics, a, b)
    shares = unit_interval(bends + 2).to(a)[:, None]
    nodes = [*((1 - shares) * a + shares * b)]
    nodes[0], nodes[-1] = a, b
    t = unit_interval(points)
    before = evaluate(objective, _points(kind, nodes, t), (points,), statistics=chosen)
    made, complete = _trained(objective, kind, nodes, steps, lr * scale, chosen, callback)
    found = evaluate(objective, _points(kind, nodes, t), (points,), statistics=chosen)
    high, error = height(objective, t, found.values)
    straight = height(objective, t, before.values)[0]
    return Path(t, found.values, high, torch.stack(nodes), kind, error, straight, made, complete, chosen)


def _points(kind: Kind, nodes: list[Tensor], t: Tensor) -> Points:
    return Points(_coefficients(kind, len(nodes), t), nodes)


def _coefficients(kind: Kind, m: int, t: Tensor) -> Tensor:
    """`(len(t), m)`: how much of each node the path has at t."""
    if kind == "polygon":
        places = torch.arange(m, dtype=torch.float64)
        return (1 - (t[:, None] * (m - 1) - places).abs()).clamp_min(0.0)
    return torch.stack([math.comb(m - 1, k) * t**k * (1 - t) ** (m - 1 - k) for k in range(m)], dim=1)


def _trained(
    objective: Objective,
    kind: Kind,
    nodes: list[Tensor],
    steps: int,
    lr: float,
    statistics: Statistics,
    callback: Callback | None,
) -> tuple[int, bool]:
    """Moves the inner nodes; how many steps were made, and whether all were."""
    means = [torch.zeros_like(node) for node in nodes]
    squares = [torch.zeros_like(node) for node in nodes]
    with ExitStack() as stack:
        if statistics == "recompute":
            objective = of_whole_batches(objective)
            stack.enter_context(batch_statistics(objective))
        for step in range(1, steps + 1):
            t = torch.tensor([(step * _GOLDEN) % 1.0], dtype=torch.float64)
            made = _points(kind, nodes, t)
            with objective.at(made.rows([0])[0]):
                value, g = objective.value_and_gradient()
            rate = lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
            for m, weight in list(enumerate(made.coefficients[0].tolist()))[1:-1]:
                means[m].mul_(_MEAN).add_(g, alpha=(1 - _MEAN) * weight)
                squares[m].mul_(_SQUARE).addcmul_(g, g, value=(1 - _SQUARE) * weight**2)
                size = (squares[m] / (1 - _SQUARE**step)).sqrt_().add_(_TINY)
                nodes[m] = nodes[m] - rate / (1 - _MEAN**step) * means[m] / size
            so_far = RunningEstimate(value, 0.0, "f", "steps")
            ask = None if callback is None else partial(callback, step, steps, so_far)
            if objective.ranks.stopped(ask):
                return step, step == steps
    return steps, True


@dataclass(frozen=True)
class Along:
    """The Hessian's largest eigenvalue at each of several points.

    Attributes:
        values: `(T,)` float64 on the host.
        errors: `(T,)` float64, residuals: each value is within that of an eigenvalue.
        converged: at all points.
        matvecs: Hessian products made; known points cost nothing.
    """

    values: Tensor
    errors: Tensor
    converged: bool
    matvecs: int


def curvature_along(
    objective: Objective,
    thetas: Tensor | Path,
    *,
    tol: float = 1e-3,
    statistics: Statistics | None = None,
    generator: torch.Generator | None = None,
    known: Along | None = None,
    callback: Callable[[int, int, Along], bool | None] | None = None,
) -> Along:
    """The Hessian's largest eigenvalue at each of the rows of `(T, n)`, or at each t of a path.

    Each search starts from the eigenvector before. Running statistics that are recomputed are constants
    in the Hessian.

    Args:
        known: what an earlier run has found at the same points; values that are not nan are not sought again.
        callback: `callback(done, T, found)` after each point; True stops, the values not reached are nan.

    Raises `ValueError` for vectors of another shape, `TypeError` for a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import curvature_along
        >>> f = Objective(torch.nn.Linear(1, 1, bias=False), lambda w, _: (w**4).mean(), torch.ones(1, 1))
        >>> curvature_along(f, torch.tensor([[0.5], [1.0]])).values.round(decimals=4).tolist()
        [3.0, 12.0]
    """
    objective.only_whole("curvature along a path")
    # points of a path are made one at a time: all together they may not fit
    rows = _points(thetas.kind, list(thetas.nodes), thetas.t) if isinstance(thetas, Path) else thetas
    here, points = objective.theta(), len(rows)
    elsewhere = [not torch.equal(vector(objective, rows[i], "each of thetas"), here) for i in range(points)]
    chosen = chosen_statistics(objective, statistics, any(elsewhere))
    found = _begun(known, points, tol)
    start, A = None, Hessian(objective)
    for i in range(points):
        if not bool(found.values[i].isnan()):
            continue
        with ExitStack() as stack:
            stack.enter_context(objective.at(vector(objective, rows[i], "each of thetas")))
            if chosen == "recompute":
                stack.enter_context(running_on(objective, recomputed(objective)))
            pairs = eigsh(A, 1, tol=tol, v0=start, generator=generator)
        start, found = pairs.vectors, _with(found, i, pairs)
        done = points - int(found.values.isnan().sum())
        ask = None if callback is None else partial(callback, done, points, found)
        if objective.ranks.stopped(ask):
            break
    return found if not bool(found.values.isnan().any()) else replace(found, converged=False)


def _begun(known: Along | None, points: int, tol: float) -> Along:
    if known is None:
        none = torch.full((points,), torch.nan, dtype=torch.float64)
        return Along(none, none.clone(), True, 0)
    if known.values.shape != (points,):
        raise ValueError(f"known= has {len(known.values)} points, the path {points}")
    exact = bool((known.errors <= tol * known.values.abs())[~known.values.isnan()].all())
    return replace(known, converged=exact, matvecs=0)


def _with(found: Along, i: int, pairs: Eigenpairs) -> Along:
    """One more point; tensors that a callback has kept stay as they are."""
    values, errors = found.values.clone(), found.errors.clone()
    values[i], errors[i] = pairs.values[0], pairs.residuals[0]
    return Along(values, errors, found.converged and pairs.converged, found.matvecs + pairs.matvecs)
