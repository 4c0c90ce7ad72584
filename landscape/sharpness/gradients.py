"""The gradient and its noise from one pass over the data: which batch size would average the noise away.

For loss terms that fall into batches at random, E|g_b - G|^2 = tr(Sigma) (1/c_b - 1/N), where g_b is the mean gradient
of the c_b terms of batch b, G that of all N and Sigma the covariance of one term's gradient. The B - 1 numbers
u_b = |g_b - G_(b-1)|^2 / (1/c_b + 1/C_(b-1)), with G_(b-1) the mean over the C_(b-1) terms of the batches before, are
uncorrelated and each has the mean tr(Sigma): their mean is the estimate, their spread its error, and only one vector
is kept. tr(Sigma) / |G|^2 is the simple noise scale of McCandlish et al. (arXiv 1812.06162, equation 2.9).

Each of several ranks does that with its own batches; then the means of all batches of each rank are taken in likewise,
along a tree. Again these are B - 1 uncorrelated numbers, and their sum is that of one process, sum_b c_b |g_b - G|^2,
however the batches are dealt out. So the estimate is the same; its error, from their spread, is another draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import torch
from torch import Tensor

from landscape.objective.batch import Batch, samples, split
from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.operators.outline import norm
from landscape.statistics import mean_stderr

# Parts that a single batch is split into: the error of the estimate is then about sqrt(2 / 15) at the most.
_PARTS = 16


@dataclass(frozen=True)
class GradientStatistics:
    """What one pass over the data tells about the gradient.

    Attributes:
        loss: f, as `Objective.value`.
        gradient: `(n,)` of f, as `Objective.gradient`.
        norm: |gradient|.
        terms: N, loss terms in the data (a total weight where classes are weighted).
        batches: batches (or parts of them) that the noise was estimated from.
        noise_trace: tr(Sigma), the total variance of one loss term's gradient: a batch of c terms has tr(Sigma) / c.
            For terms that depend on each other (the tokens of a text) it is what the batches of this size show.
        noise_trace_stderr: the truth lies within two of it in about 95 % of random partitions of the data into batches.
        noise_scale: tr(Sigma) / |G|^2 in loss terms, G the mean gradient of all terms; inf where G is 0. The data is
            taken as the whole: for a sample of a larger set |G|^2 holds tr(Sigma) / N of its own noise.
        noise_scale_stderr: as noise_trace_stderr.
        passes: gradients of the whole data that this took, splitting and its check included.
        reason: why the noise is nan; "" when it is not.
    """

    loss: float
    gradient: Tensor = field(repr=False)
    norm: float
    terms: float
    batches: int
    noise_trace: float = math.nan
    noise_trace_stderr: float = math.nan
    noise_scale: float = math.nan
    noise_scale_stderr: float = math.nan
    passes: float = 1.0
    reason: str = ""


def gradient_statistics(objective: Objective, *, parts: int | None = None) -> GradientStatistics:
    """Loss, gradient and gradient noise of the objective from one pass over its batches.

    Batches count by their loss terms; those without any are left out. The noise takes the batches to be a random
    partition of the data: data sorted by class shows more noise than there is. Several ranks find what one process with
    all batches does, but for the standard errors, which are estimates of the same. Of a sharded model the gradients of
    batches are not known, and the noise is nan with that reason.

    Args:
        objective: f; its `reduction="sum"` changes the loss and the gradient, not the noise, which is of the mean.
        parts: split each batch into so many along its first dimension. Default: batches stay as they are, but a
            single one is split into 16 (one sample each when it has fewer). Where the parts do not add up to the
            batch (batch statistics, dropout) the gradient is that of the whole batches, the noise nan with the reason.

    Raises:
        ValueError: parts < 1, or data without loss terms.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import gradient_statistics
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), [(torch.tensor([[x]]), torch.zeros(1, 1)) for x in (1.0, 2.0)])
        >>> with f.at(torch.ones(1)):  # gradients 2 and 8
        ...     found = gradient_statistics(f)
        >>> found.norm, found.noise_trace
        (5.0, 18.0)
    """
    if parts is not None and parts < 1:
        raise ValueError(f"parts must be at least 1, not {parts}")
    if objective.sharded:
        return _without_noise(objective)
    moments = _one_pass(objective, parts)
    again = bool(moments.inseparable)
    if again:
        moments = _one_pass(objective, 1, moments.inseparable)
    # a forward pass takes about a third of a gradient
    passes = 2.0 if again else 1.0 + moments.checks / 3.0
    return replace(objective.agreed(moments.result), passes=passes)


class _Inseparable(ValueError):
    """The parts of a batch do not make up the batch."""


class _Moments:
    """Running sums: of the loss, of the gradients, and what is known of their noise."""

    def __init__(self, objective: Objective, reason: str) -> None:
        self.objective = objective
        self.sums = objective.criterion.reduction == "sum"
        self.total = torch.zeros(objective.size, dtype=objective.dtype, device=objective.device)
        self.loss = 0.0
        self.terms = 0.0
        self.batches = 0
        self.deviations: list[float] = []
        self.checks = 0
        self.inseparable = ""  # why the parts do not make up a batch
        self.reason = reason  # why the noise cannot be known

    def add(self, batch: Batch) -> tuple[float, float]:
        """Take in one batch: its loss and its number of terms (loss 0 when it has none)."""
        e = self.objective.evaluate(batch)
        count = self._count(e)
        if count == 0 and not self.sums:
            return 0.0, 0.0
        loss, pieces = e.loss_and_gradient()
        gradient = self.objective.join(pieces)
        if count:
            mean = gradient / count if self.sums else gradient
            self._compare(mean, count)
            self.batches += 1
        weight = 1.0 if self.sums else count
        self.total.add_(gradient, alpha=weight)
        self.loss += weight * float(loss)
        self.terms += count
        return float(loss), count

    def _compare(self, mean: Tensor, count: float) -> None:
        if self.terms:
            spread = float(torch.linalg.vector_norm(mean - self.total / self.terms, dtype=torch.float64))
            self.deviations.append(spread**2 / (1.0 / count + 1.0 / self.terms))

    def unite(self) -> None:
        """Become those of all ranks."""
        ranks = self.objective.ranks
        if not ranks.several:
            return
        own = (self.loss, self.terms, self.batches, self.checks, self.reason, self.inseparable)
        losses, terms, batches, checks, reasons, inseparable = zip(*ranks.gathered(own), strict=True)
        counts = list(terms)  # of what stands for a rank and those merged into it

        def merge(total: Tensor, rank: int) -> None:
            self.terms, count = counts[ranks.rank], sum(terms[rank : 2 * rank - ranks.rank])
            if count:
                self._compare(total / count, count)
            self.total.add_(total)
            counts[ranks.rank] += count

        ranks.folded(self.total, merge)
        (self.total,) = ranks.as_first([self.total])
        self.deviations = [one for found in ranks.gathered(self.deviations) for one in found]
        self.loss, self.terms, self.batches, self.checks = sum(losses), sum(terms), sum(batches), max(checks)
        self.reason, self.inseparable = (next(filter(None, told), "") for told in (reasons, inseparable))

    def _count(self, e: Evaluation) -> float:
        try:
            return e.count
        except ValueError as error:
            if not self.sums:
                raise
            self.reason = self.reason or str(error)  # a sum needs no count, its noise does
            return 0.0

    def result(self) -> GradientStatistics:
        loss, gradient = (self.objective.normalise(x, self.terms or float(self.sums)) for x in (self.loss, self.total))
        length = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        reason = self.reason or ("" if self.deviations else "the noise needs at least two batches with loss terms")
        known = GradientStatistics(loss, gradient, length, self.terms, self.batches, reason=reason)
        if reason:
            return known
        noise, stderr = (float(x) for x in mean_stderr(torch.tensor(self.deviations, dtype=torch.float64)))
        square = (length / self.terms if self.sums else length) ** 2
        return replace(
            known,
            noise_trace=noise,
            noise_trace_stderr=stderr,
            noise_scale=noise / square if square else math.inf,
            noise_scale_stderr=stderr / square if square else math.inf,
        )


def _without_noise(objective: Objective) -> GradientStatistics:
    loss, gradient = objective.value_and_gradient()
    reason = "a sharded model has the gradient of all ranks' batches only, not that of each"
    return GradientStatistics(loss, gradient, norm(objective, gradient), math.nan, 0, reason=reason)


def _one_pass(objective: Objective, parts: int | None, reason: str = "") -> _Moments:
    """Over the batches of all ranks."""
    rounding = objective.rounding  # all ranks ask for it
    moments = objective.agreed(lambda: _own_pass(objective, parts, reason, rounding))
    moments.unite()
    return moments


def _own_pass(objective: Objective, parts: int | None, reason: str, rounding: float) -> _Moments:
    """Over the batches of this rank."""
    moments = _Moments(objective, reason)
    try:
        with objective.measuring():
            for batch, pieces in with_parts(objective, parts):
                if pieces == 1:
                    moments.add(batch)
                else:
                    _add_parts(moments, batch, pieces, rounding)
                    moments.checks = 1
    except _Inseparable as error:
        moments.inseparable = str(error)
    return moments


def with_parts(objective: Objective, parts: int | None, single: int = _PARTS) -> Iterator[tuple[Batch, int]]:
    """Each batch with the number of its parts; without `parts` that of the only one is `single`, of others 1."""
    batches = (batch for batch in objective.sweep() if not batch.padding)
    first = list(islice(batches, 2))
    several = (objective.batches or len(first)) > 1
    for batch in chain(first, batches):
        yield batch, parts or (1 if several else single)


def _add_parts(moments: _Moments, batch: Batch, parts: int, rounding: float) -> None:
    """Take in a batch part by part. Raises `_Inseparable` when they do not add up to it."""
    objective = moments.objective
    try:
        pieces = split(batch, max(1, math.ceil(samples(batch) / parts)))
    except ValueError as error:
        raise _Inseparable(str(error)) from None
    if len(pieces) == 1:
        moments.add(batch)
        return
    with torch.no_grad():
        e = objective.evaluate(batch)
        terms, whole = e.weight, e.weight * float(e.loss()) if e.weight else 0.0
    added = [moments.add(piece) for piece in pieces]
    total = sum(loss * (1.0 if moments.sums else count) for loss, count in added)
    counted = moments.sums or math.isclose(sum(count for _, count in added), terms, rel_tol=1e-6)
    if not (counted and abs(total - whole) <= rounding**0.5 * max(abs(total), abs(whole))):
        raise _Inseparable(
            f"the losses of the parts of batch {batch.index} do not add up to its loss ({total:.6g} against "
            f"{whole:.6g}): batch statistics, dropout or the loss couple its samples; give data of several batches"
        )
