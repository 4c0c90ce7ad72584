"""How alike two sets of data are to second order: their gradients, and their Hessians times their own gradients.

H_e g_e = grad |g_e|^2 / 2 is what Hessian alignment matches between environments (Hemati et al., ICCV 2023). Here it is
looked at: cos(g_1, g_2) and d = |H_1 g_1 - H_2 g_2| / (|H_1 g_1| + |H_2 g_2|), in [0, 1]. Of two samples of the *same*
distribution d is not 0, by noise alone. So both sets are dealt into random parts of one size, and parts of different
sets are compared beside parts of one set, which say what d is of sets that do not differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from landscape.objective.batch import Batch, rows_of, samples
from landscape.objective.objective import Objective
from landscape.objective.same import same_parameters
from landscape.operators.check import Check, worst
from landscape.operators.hessian import Hessian
from landscape.randomness import drawn_seed
from landscape.statistics import mean_stderr

# Two of each set make a group, and the groups' spread is the error: of four it is known to about 40 %.
PARTS = 8


@dataclass(frozen=True)
class GradientProducts:
    """Parts of two sets beside each other, and parts of one set beside each other: all are means over groups of parts.

    A group has two parts of each set. Truth, for parts of this size, lies within two standard errors in about 95 % of
    draws of the data; they are inf for one group. Numbers of zero gradients are nan.

    Attributes:
        cosine, cosine_stderr: of the gradients of two parts, one of each set.
        cosine_within, cosine_within_stderr: of two parts of one set: 1 less their noise.
        distance, distance_stderr: d = |H_1 g_1 - H_2 g_2| / (|H_1 g_1| + |H_2 g_2|) of two parts, one of each set.
        distance_within, distance_within_stderr: of two parts of one set: the zero level.
        excess, excess_stderr: distance - distance_within, the error from the differences of the groups.
        parts: how many of each set.
        samples: in each part, over all ranks.
        matvecs: Hessian products, each of one part.
        operator_noise: relative error of a product beyond rounding.
        checked: what the self-check of second derivatives found.
    """

    cosine: float
    cosine_stderr: float
    cosine_within: float
    cosine_within_stderr: float
    distance: float
    distance_stderr: float
    distance_within: float
    distance_within_stderr: float
    excess: float
    excess_stderr: float
    parts: int
    samples: int
    matvecs: int
    operator_noise: float = 0.0
    checked: Check | None = None


def gradient_products(
    first: Objective, second: Objective, *, parts: int = PARTS, generator: torch.Generator | None = None
) -> GradientProducts:
    """Gradient cosine and distance of H g of two sets of data, beside the values for random parts of one set.

    A part has as many samples as `parts` of them fit into the smaller set; of the larger set the rest is left out. With
    `parts=2` these are halves, and there is no error. It takes a gradient and a product of each part. Parts are
    dealt from what all ranks hold.

    Args:
        first, second: the loss on each set, on the same parameters: `f.on(domain_1)`, `f.on(domain_2)`.
        parts: of each set, an even number.
        generator: draws the samples of the parts; None is a fresh one.

    Raises:
        ValueError: an odd number of parts, less samples than parts, batches that cannot be split, other parameters.
        RuntimeError: the model has no second derivative.
        TypeError: the model is sharded.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import gradient_products
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> east, north = torch.eye(2).repeat_interleave(8, dim=0).split(8)
        >>> f = Objective(model, torch.nn.MSELoss(), (east, torch.ones(8, 1)))
        >>> with f.at(torch.zeros(2)):  # gradients at a right angle, and so are the products
        ...     found = gradient_products(f, f.on((north, torch.ones(8, 1))), parts=4)
        >>> [round(value, 4) for value in (found.cosine, found.distance, found.distance_within)]
        [0.0, 0.7071, 0.0]
    """
    if parts < 2 or parts % 2:
        raise ValueError(f"parts must be an even number, since two of each set make a group, not {parts}")
    first.only_whole("the products of Hessians and gradients")
    same_parameters(first, second)
    sets = (first, second)
    counts = [f.gathered(partial(_counts, f)) for f in sets]
    totals = [sum(map(sum, of_ranks)) for of_ranks in counts]
    size = min(totals) // parts
    if not size:
        raise ValueError(f"{parts} parts of {min(totals)} samples: use fewer parts, or more data")
    own = torch.Generator().manual_seed(first.ranks.shared(drawn_seed(generator), 0))
    dealt = []
    for f, of_ranks, total in zip(sets, counts, totals, strict=True):
        part_of = _part_of_each(total, parts, size, own)
        here = part_of.split([sum(counted) for counted in of_ranks])[f.ranks.rank]
        dealt.append(f.agreed(partial(_dealt, f, here.split(of_ranks[f.ranks.rank]), parts)))
    rows, checks, noise = [], [], 0.0
    for group in range(0, parts, 2):
        seen = []
        for f, of_set in zip(sets, dealt, strict=True):
            for part in of_set[group : group + 2]:
                here = f.on([(batch.inputs, batch.targets) for batch in part])
                H, g = Hessian(here), here.gradient()
                seen.append((g, H @ g))
                checks.append(H.checked)
                noise = max(noise, H.noise)
                H.release()
        rows.append(_group(seen))
    means, errors = (x.tolist() for x in mean_stderr(torch.tensor(rows, dtype=torch.float64)))
    found = dict(zip(_OF_A_GROUP, means, strict=True))
    found |= {f"{name}_stderr": error for name, error in zip(_OF_A_GROUP, errors, strict=True)}
    return GradientProducts(
        **found, parts=parts, samples=size, matvecs=2 * parts, operator_noise=noise, checked=worst(checks)
    )


_OF_A_GROUP = ("cosine", "cosine_within", "distance", "distance_within", "excess")


def _group(seen: list[tuple[Tensor, Tensor]]) -> tuple[float, ...]:
    """The numbers of `_OF_A_GROUP` of the parts a, a' and b, b'."""
    a, a2, b, b2 = seen
    across, within = [(a, b), (a2, b2)], [(a, a2), (b, b2)]
    cosines = [sum(_cosine(x[0], y[0]) for x, y in pairs) / 2 for pairs in (across, within)]
    distances = [sum(_distance(x[1], y[1]) for x, y in pairs) / 2 for pairs in (across, within)]
    return (*cosines, *distances, distances[0] - distances[1])


def _cosine(x: Tensor, y: Tensor) -> float:
    x, y = x.double(), y.double()
    lengths = float(torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y))
    return max(-1.0, min(1.0, float(x @ y) / lengths)) if lengths else math.nan


def _distance(x: Tensor, y: Tensor) -> float:
    """|x - y| / (|x| + |y|): the difference of the vectors themselves, since squares would cancel where it is small."""
    x, y = x.double(), y.double()
    lengths = float(torch.linalg.vector_norm(x) + torch.linalg.vector_norm(y))
    return float(torch.linalg.vector_norm(x - y)) / lengths if lengths else math.nan


def _counts(objective: Objective) -> list[int]:
    """Samples in each of this rank's own batches."""
    return [samples(batch) for batch in _held(objective)]


def _held(objective: Objective) -> Iterator[Batch]:
    """This rank's own batches, where they lie."""
    return (batch for batch in objective.sweep(skip=lambda _: True) if not batch.padding)


def _part_of_each(total: int, parts: int, size: int, generator: torch.Generator) -> Tensor:
    """The part of every sample of all ranks, -1 for those in none: the same on each of them."""
    part_of = torch.full((total,), -1)
    order = torch.randperm(total, generator=generator)
    part_of[order[: parts * size]] = torch.arange(parts).repeat_interleave(size)
    return part_of


def _dealt(objective: Objective, part_of: Sequence[Tensor], parts: int) -> list[list[Batch]]:
    """What this rank has of each part: rows of its batches, for each of which `part_of` says where they belong."""
    found: list[list[Batch]] = [[] for _ in range(parts)]
    for batch, here in zip(_held(objective), part_of, strict=True):
        for part in here.unique().tolist():
            if part >= 0:
                found[part].append(rows_of(batch, (here == part).nonzero()[:, 0]))
    return found
