"""What the algorithms return: frozen records that know their cost and their error.

`matvecs` counts the products that were made, `seed` is the seed of the generator that was used (the same seed
gives the same numbers). A standard error holds Student's factor for few samples: the truth lies within
+-2 of it in about 95 % of runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from landscape.ranks import Ranks
from landscape.spectra.carried import Measured, Result
from landscape.statistics import mean_stderr

Value = TypeVar("Value", float, Tensor)


@dataclass(frozen=True)
class Eigenpairs(Measured):
    """Eigenvalues, best first for the `which` that was asked.

    Attributes:
        values: `(k,)` float64 on the host. Fewer than asked only when the products ran out before.
        vectors: `(n, k)` orthonormal columns in the operator's dtype on its device.
        residuals: `(k,)` float64 on the host, ||A v - w v|| including what rounding and noise may hide.
        converged: all residuals are within tol * |largest| and, where that was asked, nothing was missed.
        matvecs: products made.
        seed: of the generator.
        confirmed: a random chain has shown that none was missed.
        above: the threshold above which all were asked for; None where it was a number of pairs.
        marginal: `(k,)` bool, the values within tol * |largest| of it, whose side is not told; None without one.
        more: there are more above the threshold than were allowed, of which these are the best.
        holders: the ranks that hold the rows of the vectors together; this process alone where it holds all.
    """

    values: Tensor
    vectors: Tensor = field(repr=False)
    residuals: Tensor
    converged: bool
    matvecs: int
    seed: int
    confirmed: bool = False
    above: float | None = None
    marginal: Tensor | None = field(default=None, repr=False)
    more: bool = False
    holders: Ranks = field(default_factory=Ranks, repr=False)

    def _is_zero(self) -> bool:
        return len(self.values) > 0 and not bool(self.values.any())

    def __str__(self) -> str:
        values = ", ".join(f"{float(value):.5g}" for value in self.values)
        error = f" +- {float(self.residuals.max()):.2g}" if len(self.residuals) else ""
        state = "" if self.converged else ", not converged"
        return "; ".join(
            [f"{values or 'none'}{error}{self._where()} ({self.matvecs} products{state})", *self._remarks()]
        )

    def _where(self) -> str:
        """What the values are, of those above a threshold."""
        if self.above is None or self.marginal is None:
            return ""
        near = f", {int(self.marginal.sum())} of them within tol of it" * bool(self.marginal.any())
        return f" above {self.above:.5g}{near}" + f", and more than these {len(self.values)}" * self.more

    def first(self, k: int) -> Eigenpairs:
        """The best k of them (all when there are fewer)."""
        marginal = None if self.marginal is None else self.marginal[:k]
        values, vectors, residuals = self.values[:k], self.vectors[..., :k], self.residuals[:k]
        return replace(self, values=values, vectors=vectors, residuals=residuals, marginal=marginal)


@dataclass(frozen=True)
class Estimate(Measured, Generic[Value]):
    """A number (or a tensor of numbers) with its standard error.

    Attributes:
        value: float for a trace, a mass or a moment; `(n,)` for a diagonal.
        stderr: as `value`. Within +-2 of it in about 95 % of runs; inf when there is one sample only.
        matvecs: products made.
        converged: the `rtol` that was asked is reached; without one, all planned products were made.
        seed: of the generator.
    """

    value: Value
    stderr: Value
    matvecs: int
    converged: bool
    seed: int

    def _is_zero(self) -> bool:
        return not bool(torch.as_tensor(self.value).any()) and not bool(torch.as_tensor(self.stderr).any())

    def __str__(self) -> str:
        if isinstance(self.value, Tensor):
            text = f"{tuple(self.value.shape)} values after {self.matvecs} products"
        else:
            text = f"{self.value:.6g} +- {self.stderr:.2g} ({self.matvecs} products)"
        return "; ".join([text, *self._remarks()])


@dataclass(frozen=True)
class Tridiagonal(Result):
    """A Lanczos process after m steps: A Q = Q T + r e_m^T with T = tridiag(beta, alpha, beta).

    Attributes:
        alpha: `(m,)` float64 on the host, the diagonal of T.
        beta: `(m - 1,)` float64 on the host, beside the diagonal, positive.
        basis: Q, `(n, m)` orthonormal columns, the first one v / ||v||.
        residual: r, `(n,)`, not normalised; zero when the space is exhausted. What a resumed process starts from.
    """

    alpha: Tensor
    beta: Tensor
    basis: Tensor = field(repr=False)
    residual: Tensor = field(repr=False)

    @property
    def matrix(self) -> Tensor:
        """T, `(m, m)` float64 on the host."""
        return tridiagonal(self.alpha, self.beta)


def tridiagonal(alpha: Tensor, beta: Tensor) -> Tensor:
    """The symmetric matrix with alpha, `(m,)`, on the diagonal and beta, `(m - 1,)`, beside it."""
    return torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)


@dataclass(frozen=True)
class Density(Result):
    """The spectral density as Gaussian quadratures, one per probe: the mean over probes of sum_j w_j delta(x - t_j).

    Masses and moments are fractions of the n eigenvalues and means over them: `mass(-inf, inf)` is 1 and
    `moment(1)` is trace / n. Nothing is smoothed until `curve` is called, so it can be drawn with any width.

    Attributes:
        nodes: `(probes, steps)` float64 on the host, ascending; after an early breakdown the last node repeats.
        weights: `(probes, steps)`, sum to 1 per probe; 0 on repeated nodes.
        n: the size of the operator.
        matvecs: products made.
        seed: of the generator.
        noise: relative error of the nodes, to the largest, and of the weights: rounding, and noise of the products.
        complete: False when the callback stopped it or the basis did not fit (then ghosts may split weights).
    """

    nodes: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    n: int
    matvecs: int
    seed: int
    noise: float = 0.0
    complete: bool = True

    def _is_zero(self) -> bool:
        return not bool(self.nodes.any())

    def curve(self, grid: Tensor | Sequence[float], sigma: float) -> tuple[Tensor, Tensor]:
        """The density smoothed by a Gaussian of width sigma, and its standard error over probes.

        Both `(len(grid),)` float64; integrates to 1 over the real line. The error is inf for one probe, and
        holds rounding and the randomness of the probes, not the width sigma. Raises `ValueError` for sigma <= 0.
        """
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        x = torch.as_tensor(grid, dtype=torch.float64).cpu().reshape(-1)
        curves = torch.zeros(self.nodes.shape[0], x.numel(), dtype=torch.float64)
        slopes = torch.zeros_like(curves[0])
        for row, (t, w) in enumerate(zip(self.nodes, self.weights, strict=True)):
            z = (x[:, None] - t) / sigma
            bell = torch.exp(-0.5 * z * z)
            curves[row] = bell @ w / (sigma * math.sqrt(2 * math.pi))
            slopes += (bell * z.abs()) @ w / (sigma**2 * math.sqrt(2 * math.pi) * len(self.nodes))
        mean, stderr = mean_stderr(curves)
        return mean, stderr + self.noise * mean + self._shift * slopes

    def mass(self, lo: float, hi: float) -> Estimate[float]:
        """The share of eigenvalues in [lo, hi], in [0, 1].

        A node stands for the eigenvalues around it: inside a dense part of the spectrum a bound is only as sharp as the
        nodes lie apart. The weight of a node that is nearer to a bound than half of what parts it from the next node
        enters the error, as that of nodes within rounding does.
        """
        reach = self._reach()
        inner, samples, outer = (
            (self.weights * ((self.nodes >= lo - slack) & (self.nodes <= hi + slack))).sum(dim=1)
            for slack in (-reach, 0.0, reach)
        )
        return self._estimate(samples, float((outer - inner).mean() + self.noise * outer.mean()))

    def _reach(self) -> Tensor:
        """`(probes, steps)`: how far from a node eigenvalues may lie that it stands for.

        Half of the way to the nearer neighbour. A probe that ended early has each eigenvalue as a node of its own.
        """
        gaps = self.nodes.diff(dim=1)
        ends = gaps.new_full((len(gaps), 1), math.inf)
        nearer = torch.minimum(torch.cat([gaps, ends], dim=1), torch.cat([ends, gaps], dim=1))
        ended = (self.weights == 0).any(dim=1, keepdim=True) | (self.nodes.shape[1] == 1)
        return torch.where(ended, 0.0, nearer / 2).clamp(min=self._shift)

    def moment(self, k: int) -> Estimate[float]:
        """trace(A^k) / n: the mean of lambda^k over the eigenvalues; exact per probe for k < 2 * steps.

        Raises `ValueError` for k < 0.
        """
        if k < 0:
            raise ValueError(f"moments are defined for k >= 0, not {k}")
        powers = self.weights * self.nodes**k
        slope = k * float((self.weights * self.nodes.abs() ** max(0, k - 1)).sum(dim=1).mean())
        size = float(powers.abs().sum(dim=1).mean())
        return self._estimate(powers.sum(dim=1), self.noise * size + self._shift * slope)

    @property
    def _shift(self) -> float:
        """How far rounding and noise may have moved a node."""
        return self.noise * float(self.nodes.abs().max())

    def _estimate(self, samples: Tensor, error: float) -> Estimate[float]:
        mean, stderr = mean_stderr(samples)
        return Estimate(
            float(mean), float(stderr) + error, self.matvecs, self.complete, self.seed, checked=self.checked
        )


@dataclass(frozen=True)
class ConditionNumber(Measured):
    """max / min of |eigenvalue| above a threshold.

    Attributes:
        kappa: largest / smallest; inf for a matrix without an eigenvalue above the threshold (rank 0), nan where
            the products that were made do not tell.
        largest, smallest: absolute values that kappa divides (0.0 for the zero matrix).
        rank: eigenvalues above the threshold (a lower bound when not converged).
        threshold: absolute; eigenvalues of at most this size count as zero.
        converged: False when kappa is a lower bound only.
        matvecs: products made.
        table: rows (relative threshold, rank, kappa): kappa often is nothing but 1 / threshold.
        eigenvalues: `(n,)` float64 ascending on the host when the matrix was formed, else None.
        neighbours: kappa if the rank were 2 or 1 less or 1 more (keys -2, -1, 1), when the matrix was formed: large
            steps say that kappa is a matter of the threshold. nan where no such rank exists, inf where the
            eigenvalue there is 0.
        limited_by: "" where kappa is the matrix's own. Else the threshold cuts through the spectrum, so that kappa is
            about largest / threshold whatever the matrix is: "float32" (or another precision, or "noise 3e-04") where
            that set the threshold, "the threshold" where it was given.
    """

    kappa: float
    largest: float
    smallest: float
    rank: int
    threshold: float
    converged: bool
    matvecs: int
    table: tuple[tuple[float, int, float], ...] = ()
    eigenvalues: Tensor | None = field(default=None, repr=False)
    neighbours: Mapping[int, float] = field(default_factory=dict)
    limited_by: str = ""

    def _is_zero(self) -> bool:
        return self.largest == 0.0

    def __str__(self) -> str:
        return "\n".join([*self._rows(), *(f"  {remark}" for remark in self._remarks())])

    def _rows(self) -> list[str]:
        if math.isnan(self.kappa):
            return [f"kappa unknown: stopped after {self.matvecs} products"]
        bound = "" if self.converged else ">= "
        size = "" if self.eigenvalues is None else f" of {len(self.eigenvalues)}"
        cut = f"threshold {self.threshold:.3g}, smallest {self.smallest:.3g}"
        limit = f", limited by {self.limited_by}" if self.limited_by else ""
        rows = [f"kappa {bound}{self.kappa:.3g}{limit} (rank {bound}{self.rank}{size}, {cut})"]
        if self.rank == 0:
            rows.append("  no eigenvalue is above the threshold")
        if limit:
            rows.append(f"  {limit_note(self.limited_by)}")
        near = [(self.rank + step, kappa) for step, kappa in self.neighbours.items() if not math.isnan(kappa)]
        rows += [f"  at rank {rank}: kappa {kappa:.3g}" for rank, kappa in near]
        for relative, rank, kappa in self.table:
            below = ", below the threshold" if relative * self.largest < self.threshold else ""
            rows.append(f"  at {relative:.0e} of the largest: kappa {bound}{kappa:.3g}, rank {bound}{rank}{below}")
        return rows


def limit_note(limited_by: str) -> str:
    """What it means that kappa is limited by a precision or by the threshold, and what to do about it."""
    if limited_by == "the threshold":
        return "the threshold cuts through the spectrum: kappa is about largest / threshold, whatever the matrix is"
    told = "the threshold, n eps of the largest, cuts through the spectrum: eigenvalues that are there count as zero"
    if limited_by == "float64":
        return told
    return f"{told}; a float64 copy, Objective(..., dtype=torch.float64), tells them from rounding"
