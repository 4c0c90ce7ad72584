"""What the batch rule of conditional gradients knows of a loss: L, mu, rho and sigma in norms of layers (2603.21191).

    ||grad f(x) - grad f(y)||_* <= L ||x - y||     ||x||_* <= rho ||x||_2     ||grad f(x)||_* >= mu (f(x) - f*)

The norm is the largest over layers of ||W|| / scale, its dual the sum over layers of scale times the dual norms of the
gradients (`landscape.norms`). sigma^2 is the variance of one loss term's gradient. Scales may be in any unit: with all
of them s times as large L grows by s^2, mu and rho by s, and the batch of the rule stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.norms import dual_norms, norm
from landscape.objective.batch import Batch, samples, split
from landscape.objective.objective import Objective
from landscape.sharpness.gradients import GradientStatistics, gradient_statistics, with_parts
from landscape.statistics import mean_stderr

Norms = Sequence[tuple[str, float]]
_BATCHES = 16  # that are looked at, and parts of a single one


@dataclass(frozen=True)
class LayerConstants:
    """What two points of a run tell of those constants, for the mean loss; nan where it is not known.

    Attributes:
        loss: f.
        dual: ||grad f||_*, so that mu <= dual / (f - f*) where the condition holds.
        L: ||grad f(x) - grad f(y)||_* / ||x - y|| of the whole data, y the other point: a lower bound of the
            smoothest L between the two.
        batch_L: the same with the gradients of two different batches, as the paper takes it: noise is in it.
        batch_L_stderr: of the mean over pairs of batches.
        rho: mean over batches of ||g - grad f||_* / ||g - grad f||_2.
        rho_stderr: of it.
        sigma: the root of `noise_trace` of `gradient_statistics`: a batch of c terms is off by sigma / sqrt(c).
        sigma_stderr: of it.
        distance: ||x - y||.
        batches: in those means.
        terms: loss terms in the data.
        passes: gradients of the whole data that this took, known ones not counted; about.
        reason: why sigma or rho is nan; "" when they are not.
    """

    loss: float
    dual: float
    L: float
    batch_L: float
    batch_L_stderr: float
    rho: float
    rho_stderr: float
    sigma: float
    sigma_stderr: float
    distance: float
    batches: int
    terms: float
    passes: float
    reason: str = ""

    def mu(self, infimum: float = 0.0) -> float:
        """dual / (f - infimum): the largest mu that holds here; nan where the loss is not above the infimum."""
        return self.dual / (self.loss - infimum) if self.loss > infimum else math.nan


def rule_batch(budget: float, L: float, mu: float, rho: float, sigma: float) -> float:
    """The batch of the rule (4), (T mu rho sigma / L)^(2/3), without its constant.

    Example:
        >>> from landscape.sharpness import rule_batch
        >>> round(rule_batch(1e6, L=10.0, mu=1.0, rho=50.0, sigma=2.0))
        46416
    """
    return float((budget * mu * rho * sigma / L) ** (2 / 3))


def layer_constants(
    objective: Objective,
    norms: Norms,
    before: Tensor | None = None,
    *,
    known: GradientStatistics | None = None,
    batches: int = _BATCHES,
) -> LayerConstants:
    """The constants from the gradient of the whole data and of some batches, here and at the point of `before`.

    The batches of several ranks are taken together; a single batch is split into as many parts.

    Args:
        objective: f; its batches are the training's.
        norms: (kind, scale) of each tensor in the objective's order, a kind of `landscape.norms`.
        before: `(n,)`, parameters an update or more ago; without them L is not known.
        known: of `gradient_statistics` here, where there is one.
        batches: how many are looked at, from the first on.

    Raises:
        ValueError: less than two batches asked for, or norms that do not fit.
        TypeError: the model is sharded.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import layer_constants
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), [(torch.tensor([[x]]), torch.zeros(1, 1)) for x in (1.0, 2.0)])
        >>> with f.at(torch.ones(1)):  # f = 2.5 w^2
        ...     found = layer_constants(f, [("euclidean", 1.0)], before=torch.zeros(1))
        >>> found.L, found.mu()
        (5.0, 2.0)
    """
    if batches < 2:
        raise ValueError(f"batches must be at least 2, not {batches}")
    objective.only_whole("a dual norm of the gradient")
    statistics = gradient_statistics(objective) if known is None else known
    of = _Lengths(objective, norms)
    unit = statistics.terms if objective.criterion.reduction == "sum" else 1.0  # all is of the mean loss
    whole = statistics.gradient.detach() / unit
    own = math.ceil(batches / objective.ranks.size)
    here = objective.agreed(lambda: _batch_gradients(objective, own))
    noises = objective.gathered(lambda: [_ratio(of, g - whole) for g in here])
    rho, rho_stderr, count = _mean([r for found in noises for r in found])
    L = batch_L = batch_stderr = distance = math.nan
    if before is not None:
        L, distance, pairs = _smoothness(objective, of, whole, here, before.to(whole), own, unit)
        batch_L, batch_stderr, _ = _mean(pairs)
    sigma = math.sqrt(statistics.noise_trace) if statistics.noise_trace >= 0 else math.nan
    error = statistics.noise_trace_stderr / (2 * sigma) if sigma else math.nan
    share = min(1.0, batches / max(objective.batches or batches, 1))
    return LayerConstants(
        loss=statistics.loss / unit,
        dual=of.dual(whole),
        L=L,
        batch_L=batch_L,
        batch_L_stderr=batch_stderr,
        rho=rho,
        rho_stderr=rho_stderr,
        sigma=sigma,
        sigma_stderr=error,
        distance=distance,
        batches=count,
        terms=statistics.terms,
        passes=share + (0.0 if before is None else 1.0 + share),
        reason=statistics.reason or ("" if count > 1 else "one batch that cannot be split has no noise"),
    )


class _Lengths:
    """Norm and dual norm of vectors of all parameters."""

    def __init__(self, objective: Objective, norms: Norms) -> None:
        self.objective, self.norms = objective, norms
        if len(norms) != len(objective.names):
            raise ValueError(f"{len(norms)} norms for {len(objective.names)} tensors")

    def dual(self, v: Tensor) -> float:
        return float(dual_norms(self.objective.split(v), self.norms).sum())

    def norm(self, v: Tensor) -> float:
        pieces = zip(self.objective.split(v), self.norms, strict=True)
        return float(torch.stack([norm(piece, kind) / scale for piece, (kind, scale) in pieces]).amax())


def _smoothness(
    objective: Objective, of: _Lengths, whole: Tensor, here: list[Tensor], before: Tensor, own: int, unit: float
) -> tuple[float, float, list[float]]:
    """L of the whole data, the distance, and L of pairs of different batches of all ranks."""
    distance = of.norm(objective.theta() - before)
    with objective.at(before):
        gradient = objective.gradient() / unit
        there = objective.agreed(lambda: _batch_gradients(objective, own))
    if distance == 0.0:
        return math.nan, distance, []
    shifted = there[1:] + there[:1] if len(there) > 1 else []
    pairs = zip(here, shifted, strict=False)
    found = objective.gathered(lambda: [of.dual(g - h) / distance for g, h in pairs])
    return of.dual(whole - gradient) / distance, distance, [L for own in found for L in own]


def _ratio(of: _Lengths, v: Tensor) -> float:
    length = float(torch.linalg.vector_norm(v, dtype=torch.float64))
    return of.dual(v) / length if length else math.nan


def _mean(found: list[float]) -> tuple[float, float, int]:
    """Mean, standard error and number of those that are known."""
    values = [x for x in found if math.isfinite(x)]
    if len(values) < 2:
        return math.nan, math.nan, len(values)
    mean, stderr = mean_stderr(torch.tensor(values, dtype=torch.float64))
    return float(mean), float(stderr), len(values)


def _batch_gradients(objective: Objective, limit: int) -> list[Tensor]:
    """Of the first batches of this rank with loss terms, each of its own mean loss; of parts of a single one."""
    found: list[Tensor] = []
    with objective.measuring():
        for batch in _parts(objective, limit):
            e = objective.evaluate(batch)
            if e.weight:
                _, pieces = e.loss_and_gradient()
                gradient = objective.join(pieces)
                found.append(gradient / e.count if objective.criterion.reduction == "sum" else gradient)
            if len(found) == limit:
                break
    return found


def _parts(objective: Objective, limit: int) -> Iterator[Batch]:
    """Its batches, or parts of a single one that can be split."""
    for batch, parts in with_parts(objective, None, limit):
        pieces = [batch]
        if parts > 1:
            with suppress(ValueError):  # what cannot be split stays whole
                pieces = split(batch, max(1, math.ceil(samples(batch) / parts)))
        yield from pieces
