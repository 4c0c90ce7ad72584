"""Planes that follow networks: the principal directions of a trajectory, the line or plane between checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.precision import accurate

_TOGETHER = 1 << 21  # numbers of parameter vectors that are looked at in float64 at a time


@dataclass(frozen=True)
class Frame:
    """A plane through parameter vectors, and where they lie on it.

    Attributes:
        directions: `(n, k)` in the objective's dtype on its device.
        centre: `(n,)`, the origin of the coordinates.
        coordinates: `(T, k)` float64 on the host, of the vectors' projections, in units of the directions.
        distances: `(T,)` float64, from each vector to the plane: a point far off it is not where it is drawn.
        explained: `(k,)` float64, the share of the vectors' variance along each direction.
    """

    directions: Tensor = field(repr=False)
    centre: Tensor = field(repr=False)
    coordinates: Tensor
    distances: Tensor
    explained: Tensor


def trajectory_directions(objective: Objective, thetas: Tensor | Sequence[Tensor], k: int = 2) -> Tensor:
    """`(n, k)` orthonormal principal directions of a trajectory; `trajectory_frame` gives the path on them as well.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import trajectory_directions
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)))
        >>> trajectory_directions(f, [torch.tensor([t, 0.0]) for t in (3.0, 2.0, 0.0)], 1).flatten().tolist()
        [1.0, 0.0]
    """
    return trajectory_frame(objective, thetas, k).directions


def trajectory_frame(objective: Objective, thetas: Tensor | Sequence[Tensor], k: int = 2) -> Frame:
    """The plane on which a trajectory of T parameter vectors varies most, and the path on it.

    Principal components about the mean, from the `(T, T)` Gram matrix in float64 (Li et al., section 7.2). The centre
    is the last vector. The largest entry of each direction is positive.

    Raises:
        ValueError: vectors of another length, fewer than k + 1, or that vary in fewer than k directions.
        TypeError: a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import trajectory_frame
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)))
        >>> frame = trajectory_frame(f, torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), 1)
        >>> round(float(frame.explained), 3)
        0.88
    """
    rows = _rows(objective, thetas)
    if not 1 <= k < len(rows):
        raise ValueError(f"{k} directions need at least {k + 1} parameter vectors, not {len(rows)}")
    gram, size = torch.zeros(len(rows), len(rows), dtype=torch.float64), 0.0
    for _, block in _blocks(objective, rows):
        apart = block - block.mean(dim=0)
        gram += (apart @ apart.T).cpu()
        size += float(block.square().sum())
    values, weights = torch.linalg.eigh(gram)
    values, weights = values.flip(0).clamp_min(0.0), weights.flip(1)[:, :k]
    if float(values[k - 1]) <= torch.finfo(torch.float64).eps * size:
        raise ValueError(f"the parameter vectors vary in fewer than {k} directions")
    weights = weights / values[:k].sqrt()
    basis = torch.cat([(b - b.mean(dim=0)).T @ weights.to(b.device) for _, b in _blocks(objective, rows)])
    largest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
    last = accurate(rows[-1].to(objective.device))
    return _frame(objective, rows, last, basis * largest.sign(), values[:k] / values.sum())


def between_directions(objective: Objective, thetas: Tensor | Sequence[Tensor]) -> Tensor:
    """`(n, 1)` or `(n, 2)`: directions of `between_frame`.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import between_directions
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)))
        >>> between_directions(f, [torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])]).flatten().tolist()
        [1.0, 0.0]
    """
    return between_frame(objective, thetas).directions


def between_frame(objective: Objective, thetas: Tensor | Sequence[Tensor]) -> Frame:
    """The line through two parameter vectors, or the plane through three (Garipov et al., arXiv 1802.10026, app. A.1).

    The centre is their mean. The first direction leads from the first vector half of the way to the second, so that
    with two they lie at -1 and 1; the other is orthogonal to it and as long, so that the picture has no distortion.

    Raises:
        ValueError: other than two or three vectors, or some that lie on one point or line.
        TypeError: a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import between_frame
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)))
        >>> between_frame(f, [torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])]).coordinates.flatten().tolist()
        [-1.0, 1.0]
    """
    given = _rows(objective, thetas)
    if len(given) not in (2, 3):
        raise ValueError(f"a plane goes through two or three parameter vectors, not {len(given)}")
    rows = torch.stack([accurate(theta.to(objective.device)) for theta in given])
    smallest = torch.finfo(objective.dtype).eps * rows.norm()
    u = (rows[1] - rows[0]) / 2
    basis = [u]
    if len(rows) == 3 and u.norm() > smallest:
        v = rows[2] - rows[0]
        basis.append(v - (v @ u) / (u @ u) * u)
    if min(float(d.norm()) for d in basis) <= smallest:
        raise ValueError("the parameter vectors lie on one point or one line: they span no plane")
    D = torch.stack([d * (u.norm() / d.norm()) for d in basis], dim=1)
    apart = rows - rows.mean(dim=0)
    shares = (apart @ D).square().sum(dim=0) / (u @ u) / apart.square().sum()
    return _frame(objective, given, rows.mean(dim=0), D, shares)


def _rows(objective: Objective, thetas: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """T vectors `(n,)` as they were given."""
    objective.only_whole("a surface")
    rows = [torch.as_tensor(theta).detach() for theta in thetas]
    for theta in rows:
        if theta.shape != (objective.size,):
            raise ValueError(f"parameter vectors have shape ({objective.size},), not {tuple(theta.shape)}")
    if not rows:
        raise ValueError("there are no parameter vectors")
    return rows


def _blocks(objective: Objective, rows: list[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Entries of all vectors, `(T, some)` float64: together, and so accurate, they would take too much memory."""
    size = max(1, _TOGETHER // len(rows))
    for start in range(0, objective.size, size):
        part = slice(start, start + size)
        yield part, torch.stack([accurate(theta[part].to(objective.device)) for theta in rows])


def _frame(objective: Objective, rows: list[Tensor], centre: Tensor, D: Tensor, explained: Tensor) -> Frame:
    coordinates, squares = centre.new_zeros(len(rows), D.shape[1]), centre.new_zeros(len(rows))
    for part, block in _blocks(objective, rows):
        coordinates += (block - centre[part]) @ D[part]
    coordinates /= D.square().sum(dim=0)  # columns are orthogonal
    for part, block in _blocks(objective, rows):
        squares += (block - centre[part] - coordinates @ D[part].T).square().sum(dim=1)
    distances = squares.sqrt()
    there = (D.to(objective.device, objective.dtype), centre.to(objective.device, objective.dtype))
    return Frame(*there, coordinates.cpu(), distances.cpu(), explained.cpu())
