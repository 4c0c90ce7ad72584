"""How unlike the spectra of a network's blocks are: Jensen-Shannon distances between their densities (2402.16788).

The distance of two distributions is the root of H((p + q) / 2) - (H(p) + H(q)) / 2 with entropies H in bits: 0 where
they are equal, 1 where they have no bin in common. It depends on the bins and on the width that nodes are smoothed
with, so both are stated; and two estimates of one density are apart as well: the floor to hold distances against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from landscape.spectra.blocks.spectra import BlockSpectra, BlockSpectrum
from landscape.spectra.results import Density
from landscape.statistics import jackknife

_TENTH = 10
_TAIL = 4.0  # widths beyond the outermost nodes that the bins cover


@dataclass(frozen=True)
class Heterogeneity:
    """Distances between the spectra of blocks.

    Attributes:
        names: of the blocks, in the order of rows and columns.
        distances: `(b, b)` float64 on the host, in [0, 1]; nan for blocks that were left out.
        stderr: as `distances`, from leaving out one probe of all blocks after the other; inf for one probe. It does not
            hold the upward bias of distances near the floor.
        floor: `(b,)`, the distance of one half of a block's probes to the other half: what is left of noise and of the
            finite number of Lanczos steps where spectra are equal. With all probes it is less.
        mean: JS0, the mean over all pairs, with its standard error.
        mean_floor: the mean of `floor`.
        sigma: the width, in units of the eigenvalues, or of the tenth one where they are normalised.
        bins: how many of equal width lie between `low` and `high`.
        normalise: "none" or "tenth".
        left_out: blocks without a tenth eigenvalue that is positive beyond its error.
    """

    names: tuple[str, ...]
    distances: Tensor
    stderr: Tensor
    floor: Tensor
    mean: tuple[float, float]
    mean_floor: float
    sigma: float
    bins: int
    low: float
    high: float
    normalise: str
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        scale = ", each block by its 10th largest eigenvalue" if self.normalise == "tenth" else ""
        out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"mean Jensen-Shannon distance {self.mean[0]:.3g} +- {self.mean[1]:.1g}, of blocks to themselves "
            f"{self.mean_floor:.2g} (sigma {self.sigma:.3g}, {self.bins} bins{scale}){out}"
        )


def heterogeneity(
    spectra: BlockSpectra, *, normalise: Literal["none", "tenth"] = "none", sigma: float | None = None, bins: int = 512
) -> Heterogeneity:
    """Jensen-Shannon distances between the densities of all blocks.

    Args:
        spectra: of `block_spectra`, with probes >= 2 for errors and floors, and k >= 10 for "tenth".
        normalise: "tenth" divides the eigenvalues of each block by its own 10th largest, as the figures of the paper do
            (whether its numbers do is not said there); "none" compares them as they are.
        sigma: width of the Gaussian that each node is smoothed with; by default a hundredth of the range of all nodes.
        bins: of equal width over that range and 4 sigma beyond.

    Raises `ValueError` for fewer than two blocks that can be compared, sigma <= 0, bins < 2, and "tenth" with k < 10.

    Example:
        >>> import torch
        >>> from landscape import BlockDiagonal, GaussNewton, Objective
        >>> from landscape.spectra import block_spectra, heterogeneity
        >>> model = torch.nn.Linear(2, 2)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.zeros(2, 2)))
        >>> found = heterogeneity(block_spectra(BlockDiagonal(GaussNewton(f), by="parameter")))
        >>> round(found.mean[0], 3), found.mean_floor < 1e-3  # I / 2 and I
        (1.0, True)
    """
    if (sigma is not None and not sigma > 0) or bins < 2:
        raise ValueError(f"sigma must be positive and bins at least 2, not {sigma} and {bins}")
    names = tuple(spectra.blocks)
    scales = {name: _scale(one, normalise) for name, one in spectra.blocks.items()}
    kept = [name for name in names if scales[name] > 0]
    if len(kept) < 2:
        raise ValueError(f"distances need two blocks{' with a positive 10th eigenvalue' * (len(kept) < len(names))}")
    found = [spectra.blocks[name].density for name in kept]
    nodes = [density.nodes / scales[name] for name, density in zip(kept, found, strict=True)]
    low, high = min(float(t.min()) for t in nodes), max(float(t.max()) for t in nodes)
    sigma = sigma or (high - low or abs(high) or 1.0) / 100
    edges = torch.linspace(low - _TAIL * sigma, high + _TAIL * sigma, bins + 1, dtype=torch.float64)
    masses = torch.stack([_masses(density, t, edges, sigma) for density, t in zip(found, nodes, strict=True)])
    distances, stderr = jackknife(lambda probes: _distances(masses[:, probes].mean(dim=1)), masses.shape[1])
    stderr.fill_diagonal_(0.0)
    mean, error = jackknife(lambda probes: _mean(_distances(masses[:, probes].mean(dim=1))), masses.shape[1])
    floor = torch.full((len(kept),), math.nan, dtype=torch.float64)
    if (half := masses.shape[1] // 2) > 0:
        floor = _distance(masses[:, :half].mean(dim=1), masses[:, half:].mean(dim=1))
    places = torch.tensor([names.index(name) for name in kept])
    return Heterogeneity(
        names,
        _placed(distances, places, len(names)),
        _placed(stderr, places, len(names)),
        torch.full((len(names),), math.nan, dtype=torch.float64).index_copy(0, places, floor),
        (float(mean), float(error)),
        float(floor.mean()),
        sigma,
        bins,
        float(edges[0]),
        float(edges[-1]),
        normalise,
        tuple(name for name in names if name not in kept),
    )


def _scale(one: BlockSpectrum, normalise: str) -> float:
    """What the eigenvalues of a block are divided by; 0 where there is no such number."""
    if normalise == "none":
        return 1.0
    if normalise != "tenth":
        raise ValueError(f'normalise is "none" or "tenth", not {normalise!r}')
    values = one.top.values
    if len(values) < min(_TENTH, one.n):
        raise ValueError(f'normalise="tenth" needs the 10 largest eigenvalues: block_spectra(..., k={_TENTH})')
    if len(values) < _TENTH:
        return 0.0
    value = float(values[_TENTH - 1])
    return value if value > float(one.top.residuals[_TENTH - 1]) else 0.0


def _masses(found: Density, nodes: Tensor, edges: Tensor, sigma: float) -> Tensor:
    """`(probes, bins)`: the part of each probe's smoothed distribution in each bin."""
    rows = []
    for t, w in zip(nodes, found.weights, strict=True):
        below = torch.special.ndtr((edges[:, None] - t) / sigma) @ w
        rows.append(below.diff())
    masses = torch.stack(rows)
    return masses / masses.sum(dim=1, keepdim=True)


def _distance(p: Tensor, q: Tensor) -> Tensor:
    """Along the last dimension."""
    return torch.from_numpy(jensenshannon(p.numpy(), q.numpy(), base=2, axis=-1)).nan_to_num(0.0)


def _distances(p: Tensor) -> Tensor:
    """`(b, b)` between distributions `(b, bins)`, a row at a time."""
    return torch.stack([_distance(one.expand_as(p), p) for one in p])


def _mean(distances: Tensor) -> Tensor:
    """Over all pairs."""
    b = len(distances)
    return distances.triu(1).sum() / (b * (b - 1) / 2)


def _placed(values: Tensor, places: Tensor, count: int) -> Tensor:
    whole = torch.full((count, count), math.nan, dtype=torch.float64)
    whole[places[:, None], places] = values
    return whole
