"""Batch sharpness: the curvature that SGD's own steps meet, E_B[g_B^T H_B g_B / |g_B|^2].

For plain SGD it settles at 2 / eta at the edge of stochastic stability (Andreyev and Beneventano, arXiv 2412.20553),
while the largest eigenvalue of the full Hessian stays below; with momentum beta at 2 (1 - beta) / eta for small batches
and at 2 (1 + beta) / eta for large ones (arXiv 2604.14108).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.objective.batch import Batch, samples, split
from landscape.objective.objective import Objective
from landscape.operators.autograd import fill_zeros, gradient_graph, vjp
from landscape.operators.check import Check
from landscape.operators.hessian import Hessian
from landscape.operators.self_check import self_check
from landscape.ranks import agreed_on
from landscape.statistics import mean_stderr, student

# Fewer quotients than this say too little about their own spread to stop on it.
MIN_BATCHES = 8


@dataclass(frozen=True)
class BatchSharpness:
    """Curvature along the mini-batch gradients.

    Attributes:
        value: mean over batches of g_B^T H_B g_B / |g_B|^2, in loss/parameter^2; nan when no batch has a gradient.
        stderr: of value: the truth lies within two of it in about 95 % of draws of the batches; inf for one batch.
        ratio_of_means: E[g_B^T H_B g_B] / E[|g_B|^2], in which batches with a large gradient weigh more.
        ratio_stderr: of ratio_of_means, by the jackknife.
        batches: batches in the mean.
        products: Hessian products of a batch that were made, those of batches without a gradient included.
        converged: the `rtol` that was asked is reached; without one, all batches were used.
        checked: what the self-check of the Hessian has found; None where there was none.
    """

    value: float
    stderr: float
    ratio_of_means: float
    ratio_stderr: float
    batches: int
    products: int
    converged: bool
    checked: Check | None = None


def batch_sharpness(
    objective: Objective,
    *,
    batch_size: int | None = None,
    rtol: float | None = None,
    min_batches: int = MIN_BATCHES,
    generator: torch.Generator | None = None,
) -> BatchSharpness:
    """The mean curvature of the mini-batches along their own gradients, one Hessian product per batch.

    Each batch counts the same, as it does in training; H_B and g_B are of the batch's own loss. The batches of several
    ranks are those of each; they take one each at a time, and stop together.

    Args:
        objective: its batches are the training's, unless `batch_size` is given.
        batch_size: split every batch into batches of so many samples; what remains is left out, since smaller batches
            are sharper.
        rtol: stop once stderr <= rtol * |value|; default: use all batches.
        min_batches: quotients to have before stopping.
        generator: draws the order in which a batch's samples fall into batches; None keeps the order of the data.

    Raises:
        ValueError: a batch_size, rtol or min_batches that makes no sense, or a batch_size that no batch reaches.
        RuntimeError: the model has no second derivative.
        TypeError: the model is sharded.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import batch_sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), [(torch.tensor([[x]]), torch.zeros(1, 1)) for x in (1.0, 2.0)])
        >>> with f.at(torch.ones(1)):  # second derivatives 2 and 8
        ...     print(round(batch_sharpness(f).value, 4))
        5.0
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol must be positive, not {rtol}")
    if min_batches < 2:
        raise ValueError(f"min_batches must be at least 2, not {min_batches}")
    objective.only_whole("batch sharpness")
    checked = self_check(objective, Hessian.claims)
    seen: list[tuple[float, float]] = []
    products, stopped = 0, False
    with closing(_quotients(objective, batch_size, generator)) as own:
        while not stopped and any(found := objective.gathered(lambda: next(own, None))):
            pairs = [pair for pair in found if pair]
            products += len(pairs)
            seen += [pair for pair in pairs if pair[1] > 0.0]  # a batch that is fitted exactly makes no step
            if rtol is not None and len(seen) >= min_batches:
                mean, stderr = _mean(seen)
                stopped = stderr <= rtol * abs(mean)
    if not products and batch_size is not None:
        raise agreed_on(
            ValueError(f"no batch of the data has {batch_size} samples with loss terms: use a smaller batch_size")
        )
    return BatchSharpness(*_mean(seen), *_ratio(seen), len(seen), products, stopped or rtol is None, checked)


def _batches(objective: Objective, size: int | None, generator: torch.Generator | None) -> Generator[Batch, None, None]:
    """The batches, or parts of `size` samples, numbered on so that dropout differs from one to the next."""
    own = (batch for batch in objective.sweep() if not batch.padding)
    if size is None:
        yield from own
        return
    ranks = objective.ranks
    if generator is not None and ranks.several:  # the ranks' generators stay alike, whatever each of them has to draw
        seed = int(torch.randint(1 << 62, (1,), generator=generator, device=generator.device))
        generator = torch.Generator().manual_seed(seed + ranks.rank)
    number = ranks.rank
    for batch in own:
        m = samples(batch)
        order = None if generator is None else torch.randperm(m, generator=generator, device=generator.device).cpu()
        for part in split(batch, size, order):
            if samples(part) == size:
                yield replace(part, index=number)
                number += ranks.size


def _quotients(
    objective: Objective, size: int | None, generator: torch.Generator | None
) -> Generator[tuple[float, float], None, None]:
    """Of each batch of this rank that has loss terms."""
    with objective.measuring():
        for batch in _batches(objective, size, generator):
            found = _quotient(objective, batch)
            if found is not None:
                yield found


def _quotient(objective: Objective, batch: Batch) -> tuple[float, float] | None:
    """(g^T H g, |g|^2) of one batch in float64; None for a batch without loss terms."""
    e = objective.evaluate(batch)
    if not e.weight:
        return None
    gradient = gradient_graph(e.loss(), e.leaves)
    g = [piece.detach() for piece in fill_zeros(gradient, e.leaves)]
    square = _inner(g, g)
    return (_inner(g, vjp(gradient, e.leaves, g)) if square else 0.0), square


def _inner(first: list[Tensor], second: list[Tensor]) -> float:
    """The inner product of two vectors in pieces, accumulated in float64, with one synchronisation."""
    sums = [torch.sum(a.detach().double() * b.detach().double()) for a, b in zip(first, second, strict=True)]
    return float(torch.stack([s.to(sums[0].device) for s in sums]).sum())


def _mean(seen: list[tuple[float, float]]) -> tuple[float, float]:
    """The mean of the quotients and its standard error."""
    if not seen:
        return math.nan, math.nan
    mean, stderr = mean_stderr(torch.tensor([h / g for h, g in seen], dtype=torch.float64))
    return float(mean), float(stderr)


def _ratio(seen: list[tuple[float, float]]) -> tuple[float, float]:
    """The ratio of means and its standard error: each batch left out once."""
    count = len(seen)
    if not count:
        return math.nan, math.nan
    h, g = torch.tensor(list(zip(*seen, strict=True)), dtype=torch.float64)
    ratio = float(h.sum() / g.sum())
    if count < 2:
        return ratio, math.inf
    without = (h.sum() - h) / (g.sum() - g)
    spread = float((without - without.mean()).square().sum() * (count - 1) / count)
    return ratio, spread**0.5 * student(count)
