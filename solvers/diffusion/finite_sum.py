"""Mini-batches of a finite sum, drawn without replacement: f(x) = mean_i loss(x, sample_i).

    Cov(g) = (N - B) / (B (N - 1)) (1/N) sum_i (g_i - grad f)(g_i - grad f)^T

(the variance of a mean of B of N without replacement). Its root is applied through the per-sample gradients: no
n x n matrix is formed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from typing_extensions import override

from landscape import Objective
from landscape.objective.batch import Batch
from landscape.randomness import fresh_generator
from solvers.diffusion.problems import Law, Problem


class FiniteSum(Problem):
    """The mean of `loss(x, *sample)` -> scalar over N samples, its gradients from batches without replacement.

    Args:
        loss: of one vector x `(n,)` and one sample; differentiable by `torch.func`.
        data: tensors whose rows are the samples, `(N, ...)` each.
        n: the dimension of x.
        batch_size: B, 1 to N. With B = N there is no noise.
        sampled: take Cov(g) from that many samples, drawn anew at each look, 2 to N; None takes all. It is right on
            average, grad f is exact either way.
        chunk: paths differentiated together, to bound memory (per-sample gradients are paths x N x n numbers).
        generator: draws those samples.

    Raises:
        ValueError: the tensors differ in their number of rows, or a number of samples is not possible.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, FiniteSum, discrete
        >>> data = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], dtype=torch.float64)
        >>> problem = FiniteSum(lambda x, sample: (x - sample).square().sum() / 2, (data,), n=2, batch_size=1)
        >>> paths = discrete(SGD(problem, eta=0.1), torch.zeros(2), steps=60, paths=200, every=60)
        >>> [round(float(v)) for v in paths.statistics["x"].mean[-1]]  # the mean of the data
        [3, 5]
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        data: tuple[Tensor, ...],
        n: int,
        batch_size: int,
        *,
        sampled: int | None = None,
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        rows = {len(d) for d in data}
        if len(rows) != 1:
            raise ValueError(f"the data must be tensors with one row per sample, not {sorted(rows)} rows")
        self.f, self.data, self.n = loss, data, n
        self.samples = rows.pop()
        if not 1 <= batch_size <= self.samples:
            raise ValueError(f"batch_size={batch_size} is not possible with {self.samples} samples")
        if sampled is not None and not 2 <= sampled <= self.samples:
            raise ValueError(f"sampled={sampled} is not possible with {self.samples} samples")
        self.batch_size, self.sampled, self.chunk = batch_size, sampled, chunk
        self.width = sampled or self.samples
        self._generator = generator or fresh_generator()
        self._scope: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(
        cls,
        objective: Objective,
        batch_size: int,
        *,
        sampled: int | None = None,
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> FiniteSum:
        """A network's loss, each sample weighted the same; x is the objective's flat vector. Arguments as the class.

        Raises:
            ValueError: the objective is not in float64, its inputs or targets are not tensors, or its loss is not
                the mean of its samples' losses (or cannot be taken apart by `torch.func`).
            MemoryError: the data of several ranks does not fit one of them.
        """
        if objective.dtype != torch.float64:
            raise ValueError(f"the objective is in {objective.dtype}: make it with dtype=torch.float64")
        whole = objective.whole()
        if whole is None:
            raise MemoryError("the data of all ranks does not fit the budget of each: give a larger memory=")
        objective = whole
        batches = [(batch.inputs, batch.targets) for batch in objective.sweep()]
        if not all(isinstance(part, Tensor) for batch in batches for part in batch):
            raise ValueError("the objective's inputs and targets must be tensors with one row per sample")
        data = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
        loss = _sample_loss(objective)
        problem = cls(loss, data, objective.size, batch_size, sampled=sampled, chunk=chunk, generator=generator)
        problem._scope = objective.measuring
        theta = objective.theta()
        try:
            value, expected = float(problem.loss(theta[None])), objective.value()
        except RuntimeError as error:
            raise ValueError(f"torch.func cannot take the loss apart into samples: {error}") from error
        if not math.isclose(value, expected, rel_tol=1e-8, abs_tol=1e-12):
            raise ValueError(f"the mean of the samples' losses is {value:.6g}, the objective {expected:.6g}")
        return problem

    @property
    def factor(self) -> float:
        """(N - B) / (B (N - 1)): Cov(g) over the covariance of one sample's gradient; 0 for the full batch."""
        N, B = self.samples, self.batch_size
        return (N - B) / (B * (N - 1)) if N > 1 else 0.0

    def sample_gradients(self, X: Tensor, indices: Tensor | None = None) -> Tensor:
        """`(paths, N, n)`, or those of some samples."""
        data = self.data if indices is None else tuple(d[indices] for d in self.data)
        slopes = vmap(grad(lambda x, sample: self.f(x, *sample)), in_dims=(None, 0))
        with self._scope():
            return vmap(lambda x: slopes(x, data), chunk_size=self.chunk)(X)

    @override
    def loss(self, X: Tensor) -> Tensor:
        with self._scope():
            return vmap(lambda x: self._mean(x, self.data), chunk_size=self.chunk)(X)

    @override
    def gradient(self, X: Tensor) -> Tensor:
        with self._scope():
            return vmap(lambda x: self._slope(x, self.data), chunk_size=self.chunk)(X)

    def law(self, X: Tensor) -> Law:
        """The moments of g at X; the noise of (g - grad f)^2 is that of a Gaussian g with independent entries."""
        N, generator = self.samples, self._generator
        if self.sampled is None:
            slopes = self.sample_gradients(X)
            gradient = slopes.mean(1)
        else:
            order = torch.randperm(N, generator=generator, device=generator.device)
            slopes = self.sample_gradients(X, order[: self.sampled].to(self.data[0].device))
            gradient = self.gradient(X)
        # (1/N) sum over all = (N - 1) / N times the unbiased variance of some
        scale = math.sqrt(self.factor * (N - 1) / (N * max(self.width - 1, 1)))
        centred = (slopes - slopes.mean(1, keepdim=True)) * scale
        variance = centred.square().sum(1)
        return Law(
            gradient,
            lambda: variance,
            lambda xi: torch.einsum("pi,pin->pn", xi, centred),
            lambda xi: math.sqrt(2) * variance * xi,
        )

    def sample(self, paths: int, generator: torch.Generator) -> Tensor:
        """Indices `(paths, B)` of one batch for each path."""
        keys = torch.rand(paths, self.samples, generator=generator, device=generator.device)
        return keys.argsort(1)[:, : self.batch_size].to(self.data[0].device)

    def balanced(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices `(k, B)`: all batches where there are at most `count`, else random ones.

        Those are cut from random orders of the data, one after the other and around the end, so that every sample
        appears as often as any other: the mean of their gradients is grad f. At least `count` of them.
        """
        N, B = self.samples, self.batch_size
        if math.comb(N, B) <= count:
            return torch.tensor(list(itertools.combinations(range(N), B)), device=self.data[0].device)
        common = math.gcd(N, B)
        orders = torch.rand(math.ceil(count * common / N), N, generator=generator, device=generator.device).argsort(1)
        return orders.repeat(1, B // common).reshape(-1, B).to(self.data[0].device)

    @override
    def stochastic(self, X: Tensor, draws: Tensor) -> Tensor:
        with self._scope():
            return vmap(self._slope, chunk_size=self.chunk)(X, self._batches(draws))

    @override
    def atoms(self, X: Tensor, draws: Tensor) -> Tensor:
        batches = self._batches(draws)
        every = vmap(self._slope, in_dims=(None, 0))
        with self._scope():
            return vmap(lambda x: every(x, batches), out_dims=1, chunk_size=self.chunk)(X)

    @override
    def products(self, X: Tensor, draws: Tensor, V: Tensor) -> Tensor:
        batches = self._batches(draws)
        every = vmap(lambda x, v, batch: jvp(lambda y: self._slope(y, batch), (x,), (v,))[1], in_dims=(None, 0, 0))
        with self._scope():
            return vmap(lambda x, v: every(x, v, batches), in_dims=(0, 1), out_dims=1, chunk_size=self.chunk)(X, V)

    def _batches(self, draws: Tensor) -> tuple[Tensor, ...]:
        return tuple(d[draws] for d in self.data)

    def _mean(self, x: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return vmap(lambda *sample: self.f(x, *sample))(*batch).mean()

    def _slope(self, x: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return grad(self._mean)(x, batch)


def _sample_loss(objective: Objective) -> Callable[..., Tensor]:
    """The loss of one sample as a function of the flat vector."""

    def loss(x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        batch = Batch(0, inputs.unsqueeze(0), targets.unsqueeze(0))
        outputs = objective.evaluate(batch, objective.split(x)).outputs
        return objective.criterion(outputs, batch.targets)

    return loss
