"""Alignment: the units of one network in the order of another's, by matching their weights.

A permutation of hidden units, of the weights that make them and of those that take them up, leaves the function as it
is, so that two trainings of one network differ by a permutation at least. Weight matching (Ainsworth et al., arXiv
2209.04836, section 3.2 and algorithm 1): maximise <a, P b>, layer by layer, each of which is an assignment problem.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.surface.plane import chosen_statistics, vector
from landscape.surface.points import Points
from landscape.surface.units.trace import Group, Use, groups
from landscape.surface.values import evaluate

_SWEEPS = 100
_ROUNDINGS = 1e4  # two orders of summation may be apart in a deep network; a wrong permutation is another function

Arrays = dict[str, np.ndarray]
Orders = dict[int, np.ndarray]  # for each group, which of b's units comes where


def align(objective: Objective, a: Tensor, b: Tensor) -> Tensor:
    """`(n,)`: b with its units permuted so that its weights are as near to those of a as can be found; f(b) stays.

    Units are neurons, channels and heads of attention (features within a head stay in their order), as the layers of
    the objective's model have them; those that meet in a sum, as on a residual stream, go together. Parameters that
    are not among the objective's keep their units where they are. The search climbs from b as it is and from a match
    of the layers one after the other, and takes the better end, which need not be the best there is.

    Args:
        objective: of the model; a, b are `(n,)`, of the same network.

    Raises:
        TypeError: the model has a module that there is no rule for, which is named; a sharded model.
        ValueError: vectors of another shape; or f(b permuted) is not f(b), so that the model reads its parameters in
            ways that cannot be seen.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import align
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(3, 1), torch.ones(3, 1)))
        >>> a = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])
        >>> align(f, a, torch.tensor([2.1, 1.1, 4.1, 3.1, 0.0])).tolist()
        [1.1..., 2.0..., 3.0..., 4.0..., 0.0]
    """
    objective.only_whole("alignment")
    a, b = vector(objective, a, "a"), vector(objective, b, "b")
    free = [group for group in groups(objective) if group.free]
    first, second = (_arrays(objective, theta) for theta in (a, b))
    start = {i: np.arange(group.size) for i, group in enumerate(free)}
    ends = [_climbed(free, first, second, orders) for orders in (start, _in_turn(free, first, second))]
    orders = max(ends, key=lambda end: _likeness(free, first, second, end))
    permuted = objective.join(_reordered(objective, free, objective.split(b), orders))
    _confirm(objective, b, permuted)
    return permuted


def _arrays(objective: Objective, theta: Tensor) -> Arrays:
    return {name: t.double().cpu().numpy() for name, t in objective.unflatten(theta).items()}


def _entries(use: Use, order: np.ndarray) -> np.ndarray:
    """The entries of an axis in the order of its units."""
    blocks = np.arange(use.outer * len(order) * use.inner).reshape(use.outer, len(order), use.inner)
    return blocks[:, order].reshape(-1)


def _reordered(objective: Objective, free: Sequence[Group], pieces: list[Tensor], orders: Orders) -> list[Tensor]:
    found = dict(zip(objective.names, pieces, strict=True))
    for i, group in enumerate(free):
        for use in group.uses:
            index = torch.as_tensor(_entries(use, orders[i])).to(found[use.name].device)
            found[use.name] = found[use.name].index_select(use.axis, index)
    return list(found.values())


def _permuted(free: Sequence[Group], arrays: Arrays, orders: Orders) -> Arrays:
    found = dict(arrays)
    for i, group in enumerate(free):
        if i in orders:
            for use in group.uses:
                found[use.name] = found[use.name].take(_entries(use, orders[i]), axis=use.axis)
    return found


def _gains(group: Group, uses: Sequence[Use], a: Arrays, b: Arrays) -> np.ndarray:
    """`(size, size)`: what <a, P b> has of unit j of b in the place of unit i of a."""
    total = np.zeros((group.size, group.size))
    for use in uses:
        rows = []
        for array in (a[use.name], b[use.name]):
            axis = np.moveaxis(array, use.axis, 0).reshape(use.outer, group.size, use.inner, -1)
            rows.append(axis.transpose(1, 0, 2, 3).reshape(group.size, -1))
        total += rows[0] @ rows[1].T
    return total


def _matched(gains: np.ndarray) -> np.ndarray:
    return np.asarray(linear_sum_assignment(gains, maximize=True)[1])


def _in_turn(free: Sequence[Group], a: Arrays, b: Arrays) -> Orders:
    """Layer by layer, by those weights only whose other ends are known: a permuted copy is found at once."""
    orders: Orders = {}
    places = {(use.name, use.axis): i for i, group in enumerate(free) for use in group.uses}
    for i, group in enumerate(free):
        known = [
            use
            for use in group.uses
            if all(places.get((use.name, d), -1) in (-1, *orders) for d in range(a[use.name].ndim) if d != use.axis)
        ]
        orders[i] = _matched(_gains(group, known or group.uses, a, _permuted(free, b, orders)))
    return orders


def _climbed(free: Sequence[Group], a: Arrays, b: Arrays, orders: Orders) -> Orders:
    """One group after the other is matched while the others stay, until none gains."""
    orders = dict(orders)
    best = _likeness(free, a, b, orders)
    for _ in range(_SWEEPS):
        before = best
        for i, group in enumerate(free):
            there = _permuted(free, b, orders)
            step = _matched(_gains(group, group.uses, a, there))
            tried = {**orders, i: orders[i][step]}
            found = _likeness(free, a, b, tried)
            if found > best * (1 + 1e-12) if best > 0 else found > best:
                orders, best = tried, found
        if best == before:
            break
    return orders


def _likeness(free: Sequence[Group], a: Arrays, b: Arrays, orders: Orders) -> float:
    there = _permuted(free, b, orders)
    return float(sum(np.vdot(a[name], there[name]) for name in a))


def _confirm(objective: Objective, b: Tensor, permuted: Tensor) -> None:
    statistics = chosen_statistics(objective, None, elsewhere=True)
    points = Points(torch.eye(2, dtype=torch.float64), [b, permuted])
    before, after = evaluate(objective, points, (2,), statistics=statistics).values.tolist()
    if abs(before - after) > min(0.1, _ROUNDINGS * objective.rounding) * max(abs(before), abs(after)):
        raise ValueError(
            f"f is {before:.6g} at b and {after:.6g} with its units permuted as the layers let one expect: the model "
            "depends on the order of its units in a way that cannot be seen"
        )
