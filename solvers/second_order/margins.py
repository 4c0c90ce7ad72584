"""Losses of a linear model, with their margins kept: f(w) = sum_i phi(x_i . w, y_i) / N + r(w).

Any solver may use it as a closure. A solver that moves few coordinates S at a time asks for blocks instead: with the
margins z = X w at hand the gradient in S costs O(N |S|), the block X_S^T D X_S of the Hessian O(N |S|^2), and the loss
after a step in S O(N |S|), whatever the number of features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from solvers.base import check
from solvers.second_order.margin_losses import LOSSES, Loss

# Samples whose features are gathered at a time: what a block needs beside the data stays small.
_SAMPLES = 1024
# Moves after which the margins are computed anew, so that rounding does not add up.
_REFRESH = 1000


class Regulariser(Protocol):
    """r(w) = sum_j rho(w_j): values, first and second derivatives by coordinate."""

    def value(self, w: Tensor) -> Tensor:
        """rho, `(n,)`."""

    def first(self, w: Tensor) -> Tensor:
        """rho', `(n,)`."""

    def second(self, w: Tensor) -> Tensor:
        """rho'', `(n,)`."""


@dataclass(frozen=True)
class Ridge(Regulariser):
    """weight w^2 / 2 in each coordinate.

    Example:
        >>> from solvers import CubicNewton, Ridge, linear_model
        >>> model = linear_model([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0], "least-squares", Ridge(0.1))
        >>> solver = CubicNewton([model.weight])
        >>> losses = [float(solver.step(model)) for _ in range(10)]
        >>> losses[0], round(losses[-1], 4)
        (0.5, 0.0536)
    """

    weight: float

    @override
    def value(self, w: Tensor) -> Tensor:
        return 0.5 * self.weight * w.square()

    @override
    def first(self, w: Tensor) -> Tensor:
        return self.weight * w

    @override
    def second(self, w: Tensor) -> Tensor:
        return torch.full_like(w, self.weight)


@dataclass(frozen=True)
class NonConvex(Regulariser):
    """weight * beta w^2 / (1 + beta w^2) in each coordinate (the regulariser of arXiv 2406.16666).

    Example:
        >>> from solvers import CubicNewton, NonConvex, linear_model
        >>> model = linear_model([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0], "least-squares", NonConvex(0.1))
        >>> solver = CubicNewton([model.weight])
        >>> losses = [float(solver.step(model)) for _ in range(15)]
        >>> losses[0], round(losses[-1], 4)
        (0.5, 0.0662)
    """

    weight: float = 0.1
    beta: float = 1.0

    @override
    def value(self, w: Tensor) -> Tensor:
        s = self.beta * w.square()
        return self.weight * s / (1.0 + s)

    @override
    def first(self, w: Tensor) -> Tensor:
        return self.weight * 2.0 * self.beta * w / (1.0 + self.beta * w.square()).square()

    def second(self, w: Tensor) -> Tensor:
        """`(n,)`, negative beyond |w| = 1 / sqrt(3 beta)."""
        s = self.beta * w.square()
        return self.weight * self.beta * (2.0 - 6.0 * s) / (1.0 + s) ** 3


class LinearModel:
    """The loss of a linear model as a closure, with its blocks; made by `linear_model`.

    Attributes:
        weight: w, `(n,)`, the parameter to hand to a solver.

    Example:
        >>> import torch
        >>> from solvers import linear_model
        >>> model = linear_model([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0], "least-squares")
        >>> g, H = model.blocks(torch.tensor([1]))
        >>> model.value(), g.tolist(), H.tolist()
        (0.5, [-1.0], [[2.0]])
        >>> model.trial(torch.tensor([1]), -g / H[0, 0])  # the loss after a step, which is not made
        0.25
    """

    def __init__(
        self, X: Tensor, y: Tensor, loss: Loss, regulariser: Regulariser, start: Tensor, mu: float, keep: bool = True
    ) -> None:
        # of each part of the samples a feature's values lie together: blocks are gathered by rows
        self._parts = [(slice(i, i + _SAMPLES), X[i : i + _SAMPLES].T.contiguous()) for i in range(0, len(X), _SAMPLES)]
        self._y, self._regulariser, self._mu = y, regulariser, mu
        self._all, self._keep = torch.arange(X.shape[1]), keep
        self._loss = None if loss == "log-sum-exp" else LOSSES[loss]
        self.weight = nn.Parameter(start.to(X).clone())
        self._seen: Tensor | None = None
        self._z, self._moves = y, 0
        self._tried: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self) -> Tensor:
        """f(w) with its graph."""
        return self._of_margins(self._margins(self.weight)) + self._regulariser.value(self.weight).sum()

    def value(self) -> float:
        """f(w) from the margins."""
        self._refresh()
        return float(self._of_margins(self._z)) + float(self._regulariser.value(self.weight.detach()).sum())

    def blocks(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(g_S, H_SS), `(tau,)` and `(tau, tau)`, in one pass over the features in S."""
        self._refresh()
        first, second = self._derivatives(self._z)
        tau = len(indices)
        g, H = self._y.new_zeros(tau), self._y.new_zeros(tau, tau)
        for samples, part in self._gathered(indices):
            g += part @ first[samples]
            H.addmm_(part * second[samples], part.T)
        if self._loss is None:  # log-sum-exp: the softmax couples the samples
            H -= torch.outer(g, g) / self._mu
        w = self.weight.detach()[indices]
        g += self._regulariser.first(w)
        H.diagonal().add_(self._regulariser.second(w))
        return g, H

    def gradient(self, indices: Tensor) -> Tensor:
        """g_S, `(tau,)`."""
        self._refresh()
        return self._slopes(indices, self._z, self.weight.detach()[indices])

    def product(self, V: Tensor) -> Tensor:
        """H V, `(n, k)`, of the whole Hessian."""
        self._refresh()
        first, second = self._derivatives(self._z)
        HV = self._regulariser.second(self.weight.detach())[:, None] * V
        for samples, part in self._parts:
            HV += part @ (second[samples, None] * (part.T @ V))
        if self._loss is None:  # log-sum-exp: the softmax couples the samples
            g = torch.cat([(part @ first[samples])[:, None] for samples, part in self._parts], 1).sum(1)
            HV -= torch.outer(g, g @ V) / self._mu
        return HV

    def trial(self, indices: Tensor, h: Tensor) -> float:
        """f(w + E_S h); w stays."""
        self._refresh()
        w = self.weight.detach()
        if self._keep:
            z = self._z.clone()
            for samples, part in self._gathered(indices):
                z[samples] += part.T @ h.to(part)
        else:
            z = self._margins(w.index_add(0, indices, h.to(w)))
        self._tried = (indices, h.to(w), z)
        at, penalty = w[indices], self._regulariser.value
        change = penalty(at + h.to(w)) - penalty(at)
        return float(self._of_margins(z)) + float(penalty(w).sum()) + float(change.sum())

    def trial_gradient(self) -> Tensor:
        """g_S at the last trial point, `(tau,)`."""
        indices, h, z = self._last()
        return self._slopes(indices, z, self.weight.detach()[indices] + h)

    def move(self) -> None:
        """Take the last trial point for w."""
        indices, h, z = self._last()
        with torch.no_grad():
            self.weight.index_add_(0, indices, h)
        self._z, self._tried, self._moves = z, None, self._moves + 1
        self._seen = self.weight.detach().clone() if self._moves % _REFRESH else None

    def _last(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._tried is None:
            raise RuntimeError("no trial point: call trial(indices, h) first")
        return self._tried

    def _refresh(self) -> None:
        """The margins of w as it stands, computed anew when somebody else has moved it."""
        w = self.weight.detach()
        if not self._keep or self._seen is None or not torch.equal(self._seen, w):
            self._z, self._seen, self._tried = self._margins(w), w.clone(), None

    def _margins(self, w: Tensor) -> Tensor:
        """X w, `(N,)`."""
        return torch.cat([part.T @ w for _, part in self._parts])

    def _slopes(self, indices: Tensor, z: Tensor, w: Tensor) -> Tensor:
        """g_S where the margins are z and the weights in S are w."""
        first, _ = self._derivatives(z)
        g = self._regulariser.first(w)
        for samples, part in self._gathered(indices):
            g = g + part @ first[samples]
        return g

    def _gathered(self, indices: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(samples, features in S of these samples `(tau, samples)`)."""
        whole = torch.equal(indices, self._all)
        for samples, part in self._parts:
            yield samples, part if whole else part.index_select(0, indices)

    def _of_margins(self, z: Tensor) -> Tensor:
        if self._loss is None:
            return self._mu * torch.logsumexp((z - self._y) / self._mu, dim=0)
        return self._loss.value(z, self._y).mean()

    def _derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """First derivatives and the diagonal of the second ones in the margins, `(N,)` each."""
        if self._loss is None:
            p = torch.softmax((z - self._y) / self._mu, dim=0)
            return p, p / self._mu
        samples = len(self._y)
        return self._loss.first(z, self._y) / samples, self._loss.second(z, self._y) / samples


def linear_model(
    X: Any,
    y: Any,
    loss: Loss = "logistic",
    regulariser: Regulariser | None = None,
    *,
    start: Any = None,
    mu: float = 1.0,
    dtype: torch.dtype = torch.float64,
    keep_margins: bool = True,
) -> LinearModel:
    """A linear model's loss with its margins kept, to be minimised in `.weight`.

    Args:
        X: `(N, n)` features, a tensor or an array; copied once, by columns.
        y: `(N,)` labels (0 and 1 for "logistic"), targets, or the offsets b of "log-sum-exp".
        loss: "logistic", "least-squares", "cauchy" log(1 + t^2 / 2), "geman-mcclure" 2 t^2 / (t^2 + 4), means over
            samples with t = z - y; "squares-..." (phi(z) - y)^2 / 2 with phi "sigmoid" or one of the last two of z;
            "log-sum-exp" mu log sum_i exp((z_i - y_i) / mu).
        regulariser: `Ridge(weight)`, `NonConvex(weight, beta)` or None.
        start: `(n,)`, default zeros.
        dtype: of the computation.
        keep_margins: False computes X w anew at every call, as scripts do that keep nothing.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, labels that are not 0 and 1, an unknown loss.

    Example:
        >>> import torch
        >>> from solvers import SSCN, linear_model
        >>> model = linear_model([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.0, 1.0, 1.0])
        >>> solver = SSCN([model.weight], subspace=1, generator=torch.Generator().manual_seed(0))
        >>> losses = [float(solver.step(model)) for _ in range(30)]
        >>> round(losses[0], 3), losses[-1] < 0.4, solver.last.products  # blocks are given
        (0.693, True, 0)
    """
    X, y = torch.as_tensor(X).detach().to(dtype), torch.as_tensor(y).detach().to(dtype)
    if X.ndim != 2 or y.shape != X.shape[:1] or X.numel() == 0:
        raise ValueError(f"X must be (N, n) and y (N,), not {tuple(X.shape)} and {tuple(y.shape)}")
    if loss not in (*LOSSES, "log-sum-exp"):
        raise ValueError(f"loss is one of {', '.join((*LOSSES, 'log-sum-exp'))}, not {loss!r}")
    if not bool(torch.isfinite(X).all() and torch.isfinite(y).all()):
        raise ValueError("X or y has entries that are not finite")
    if loss == "logistic" and not bool(((y == 0) | (y == 1)).all()):
        raise ValueError("logistic labels are 0 and 1")
    check(mu=(mu, mu > 0))
    start = torch.zeros(X.shape[1]) if start is None else torch.as_tensor(start).detach()
    if start.shape != (X.shape[1],):
        raise ValueError(f"start must be ({X.shape[1]},), not {tuple(start.shape)}")
    return LinearModel(X, y, loss, regulariser or Ridge(0.0), start, mu, keep_margins)
