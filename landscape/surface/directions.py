"""Directions of a surface: random, of largest curvature, of the gradient, of a trajectory, between checkpoints.

Each is a matrix `(n, k)` whose columns are in the units of the parameters, ready for `plane`. Random ones are scaled
filter by filter, as Li et al. (arXiv 1712.09913, section 4) do, so that a step has the same meaning in each layer:
networks that are alike up to the scales of their layers then have alike surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvTransposeNd

from landscape.objective.objective import Objective
from landscape.operators.hessian import Hessian
from landscape.operators.vectors import VectorSpace
from landscape.precision import accurate
from landscape.randomness import generator_and_seed
from landscape.spectra.callbacks import Callback
from landscape.spectra.eigsh import eigsh

Normalise = Literal["filter", "layer", "none"]


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


def random_directions(
    objective: Objective,
    k: int,
    normalise: Normalise = "filter",
    generator: torch.Generator | None = None,
    *,
    vectors: Literal["zero", "scale"] = "zero",
) -> Tensor:
    """`(n, k)` normal random directions in the scale of the weights.

    Args:
        normalise: "filter": each filter (the weights of one output channel, neuron or embedding) has the norm of the
            weights' own one. "layer": each weight tensor as a whole has. "none": as drawn, all entries alike.
        vectors: biases and scales of norm layers, all that has one dimension or none. "zero": directions are zero
            there, as those of Li et al.; "scale": each has the norm of the parameter's. Of no effect with "none".
        generator: the same one gives the same directions on any device.

    Raises:
        ValueError: k below 1, or an option that there is not.
        TypeError: a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import random_directions
        >>> model = torch.nn.Linear(3, 2, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(3), torch.ones(3, 2)))
        >>> D = random_directions(f, 2)
        >>> torch.allclose(D[:, 0].reshape(2, 3).norm(dim=1), model.weight.norm(dim=1))
        True
    """
    if normalise not in ("filter", "layer", "none"):
        raise ValueError(f'normalise is "filter", "layer" or "none", not {normalise!r}')
    if vectors not in ("zero", "scale"):
        raise ValueError(f'vectors is "zero" or "scale", not {vectors!r}')
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    objective.only_whole("a surface")
    generator, _ = generator_and_seed(generator)
    drawn = VectorSpace(objective.size, objective.dtype, objective.device).random(k, "normal", generator)
    if normalise == "none":
        return drawn
    turned = _transposed(objective)
    pieces = []
    for name, p, d in zip(objective.names, objective.leaves(), objective.split(drawn.T.contiguous()), strict=True):
        w = p.detach().to(d.dtype)
        if w.ndim < 2:
            pieces.append(_scaled(d, w, range(w.ndim)) if vectors == "scale" else torch.zeros_like(d))
            continue
        rows = 1 if name in turned else 0
        pieces.append(_scaled(d, w, [i for i in range(w.ndim) if normalise == "layer" or i != rows]))
    return objective.join(pieces).T.contiguous()


def _scaled(d: Tensor, w: Tensor, dims: Sequence[int]) -> Tensor:
    """Each `d[j]` with the norms of `w` over these dimensions (of w); zero where those of w are."""
    if w.ndim == 0:
        return d.sign() * w.abs()
    own = torch.linalg.vector_norm(w, dim=tuple(dims), keepdim=True)
    drawn = torch.linalg.vector_norm(d, dim=tuple(i + 1 for i in dims), keepdim=True)
    return d * (own / drawn.clamp_min(torch.finfo(d.dtype).tiny))


def _transposed(objective: Objective) -> set[str]:
    """Weights whose filters lie along their second dimension."""
    modules = objective.module.named_modules()
    return {f"{name}.weight".removeprefix(".") for name, m in modules if isinstance(m, _ConvTransposeNd)}


def eigen_directions(
    objective: Objective,
    k: int,
    *,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """`(n, k)`: the Hessian's eigenvectors of the k largest eigenvalues, of norm 1, as `eigsh` finds them.

    The largest entry of each is positive. Where the eigenvalues themselves, with their errors, are wanted: `eigsh`.

    Raises `TypeError` for a sharded model.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import eigen_directions
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.diag(torch.tensor([3.0, 1.0])), torch.zeros(2, 1)))
        >>> eigen_directions(f, 1).flatten().round(decimals=3).abs().tolist()
        [1.0, 0.0]
    """
    objective.only_whole("a surface")
    found = eigsh(Hessian(objective), k, tol=tol, generator=generator, callback=callback).vectors
    largest = found.gather(0, found.abs().argmax(dim=0, keepdim=True))
    return found * torch.where(largest < 0, -1.0, 1.0).to(found)


def gradient_direction(objective: Objective) -> Tensor:
    """`(n, 1)`: the gradient, of norm 1: uphill. Raises `ValueError` where it is zero.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.surface import gradient_direction
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)))
        >>> with f.at(torch.tensor([3.0, 4.0])):
        ...     gradient_direction(f).flatten().tolist()
        [0.6..., 0.8...]
    """
    objective.only_whole("a surface")
    g = objective.gradient()
    norm = torch.linalg.vector_norm(g, dtype=torch.float64)
    if not norm:
        raise ValueError("the gradient is zero: it has no direction")
    return (g / norm.to(g))[:, None]


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
    rows = _stacked(objective, thetas)
    if not 1 <= k < len(rows):
        raise ValueError(f"{k} directions need at least {k + 1} parameter vectors, not {len(rows)}")
    apart = rows - rows.mean(dim=0)
    values, weights = torch.linalg.eigh(apart @ apart.T)
    values, weights = values.flip(0).clamp_min(0.0), weights.flip(1)[:, :k]
    if float(values[k - 1]) <= torch.finfo(torch.float64).eps * float(rows.square().sum()):
        raise ValueError(f"the parameter vectors vary in fewer than {k} directions")
    basis = apart.T @ (weights / values[:k].sqrt())
    largest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
    return _frame(objective, rows, rows[-1], basis * largest.sign(), values[:k] / values.sum())


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
    rows = _stacked(objective, thetas)
    if len(rows) not in (2, 3):
        raise ValueError(f"a plane goes through two or three parameter vectors, not {len(rows)}")
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
    return _frame(objective, rows, rows.mean(dim=0), D, shares)


def _stacked(objective: Objective, thetas: Tensor | Sequence[Tensor]) -> Tensor:
    """`(T, n)` in float64."""
    objective.only_whole("a surface")
    rows = [torch.as_tensor(theta).detach() for theta in thetas]
    for theta in rows:
        if theta.shape != (objective.size,):
            raise ValueError(f"parameter vectors have shape ({objective.size},), not {tuple(theta.shape)}")
    if not rows:
        raise ValueError("there are no parameter vectors")
    return torch.stack([accurate(theta.to(objective.device)) for theta in rows])


def _frame(objective: Objective, rows: Tensor, centre: Tensor, D: Tensor, explained: Tensor) -> Frame:
    apart = rows - centre
    coordinates = apart @ D / D.square().sum(dim=0)  # columns are orthogonal
    distances = (apart - coordinates @ D.T).norm(dim=1)
    there = (D.to(objective.device, objective.dtype), centre.to(objective.device, objective.dtype))
    return Frame(*there, coordinates.cpu(), distances.cpu(), explained.cpu())
