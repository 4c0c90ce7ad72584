"""Directions of a surface: random, of largest curvature, of the gradient; through networks see `frames`.

Each is a matrix `(n, k)` whose columns are in the units of the parameters, ready for `plane`. Random ones are scaled
filter by filter, as Li et al. (arXiv 1712.09913, section 4) do, so that a step has the same meaning in each layer:
networks that are alike up to the scales of their layers then have alike surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvTransposeNd

from landscape.objective.objective import Objective
from landscape.operators.hessian import Hessian
from landscape.operators.vectors import VectorSpace
from landscape.randomness import generator_and_seed
from landscape.spectra.callbacks import Callback
from landscape.spectra.eigsh import eigsh

Normalise = Literal["filter", "layer", "none"]


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
