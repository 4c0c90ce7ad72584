"""The cubic sub-problem  min_h m(h) = g.h + h.H h / 2 + (M / 6) ||h||^3, exactly, in float64.

h is a global minimiser iff (H + lam I) h = -g with lam = (M / 2) ||h|| and H + lam I positive semi-definite (Nesterov
and Polyak 2006). With H = U diag(w) U^T and c = U^T g the one unknown is written lam = max(0, -w_1) + d, d >= 0, and
only differences w_i - w_1 enter: next to lam = -w_1 the sums w_i + lam would lose all their digits. The norm of
s(d)_i = -c_i / (gap_i + d) falls with d, and Newton's method on 1 / ||s(d)|| - M / (2 lam), kept inside a bracket known
in closed form, finds where it is 2 lam / M. If it is below that for all d > 0 (the hard case: g has no part in the
lowest eigenspace), the rest of the length is made up along the lowest eigenvector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# On 20,000 cases over twelve orders of magnitude the mean was 5 rounds and the largest 50.
_ROUNDS = 200
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class CubicStep:
    """The minimiser of a cubic model.

    Attributes:
        h: `(n,)` in the dtype and on the device of g.
        multiplier: lam = (M / 2) ||h||.
        decrease: -m(h) >= 0.
        residual: ||g + H h + lam h|| / (||g|| + ||H|| ||h|| + lam ||h||); rounding when exact.
        hard_case: the step has a part along the lowest eigenvector that g does not determine; its sign is arbitrary.
        lowest: the smallest eigenvalue of H (of the part of it that was seen, for `solve_cubic_krylov`).
        largest: the largest |eigenvalue| of H, likewise.
        products: with H, for `solve_cubic_krylov`; 0 else.
        converged: False when a limit of products came before the accuracy.
    """

    h: Tensor = field(repr=False)
    multiplier: float
    decrease: float
    residual: float
    hard_case: bool
    lowest: float
    largest: float
    products: int = 0
    converged: bool = True

    @property
    def indefinite(self) -> bool:
        """Whether an eigenvalue is negative, beyond rounding."""
        return self.lowest < -len(self.h) * torch.finfo(torch.float64).eps * self.largest


def solve_cubic(g: Tensor, H: Tensor, M: float) -> CubicStep:
    """The global minimiser of g.h + h.H h / 2 + (M / 6) ||h||^3.

    Args:
        g: `(n,)`, n >= 1.
        H: `(n, n)` symmetric, any inertia; the mean with its transpose is taken. Decomposed on the host in float64.
        M: > 0.

    Returns:
        `CubicStep`. g = 0 with H >= 0 gives h = 0; g = 0 at a saddle a step of length 2 |w_1| / M along the lowest
        eigenvector.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, M that is not positive and finite.

    Example:
        >>> import torch
        >>> from solvers import solve_cubic
        >>> g, H = torch.tensor([1.0, 0.0]), torch.diag(torch.tensor([2.0, -1.0]))
        >>> step = solve_cubic(g, H, M=1.0)
        >>> step.hard_case, step.lowest, round(step.multiplier, 3), round(float(step.h.norm()), 3)
        (True, -1.0, 1.0, 2.0)
    """
    if g.ndim != 1 or H.shape != (len(g), len(g)) or len(g) == 0:
        raise ValueError(f"g must be (n,) and H (n, n), not {tuple(g.shape)} and {tuple(H.shape)}")
    c, A = g.detach().double().cpu(), H.detach().double().cpu()
    if not bool(torch.isfinite(c).all() and torch.isfinite(A).all()):
        raise ValueError("g or H has entries that are not finite")
    w, U = torch.linalg.eigh(0.5 * (A + A.T))
    return assemble(g, w, U, U.T @ c, M)


def assemble(g: Tensor, w: Tensor, U: Tensor, c: Tensor, M: float) -> CubicStep:
    """The step from a decomposition H = U diag(w) U^T (w ascending) and c = U^T g, all float64 on the host.

    For several M with one H: the decomposition, the costly part, is made once. Raises `ValueError` for an M that is not
    positive and finite.
    """
    if not 0 < M < math.inf:
        raise ValueError(f"M must be positive and finite, not {M}")
    values, part = w.numpy(), c.numpy()  # on vectors as short as these torch would mostly wait for itself
    s, lam, hard = _solve(values, part, M)
    norm = _norm(s)
    # the model's value by the stationarity condition would cancel; by its terms it does not
    decrease = -float(part @ s) - 0.5 * float(values @ (s * s)) - M / 6.0 * norm**3
    largest = float(np.abs(values).max())
    scale = _norm(part) + largest * norm + lam * norm
    residual = _norm(part + values * s + lam * s) / max(scale, _TINY)
    h = (U @ torch.from_numpy(s)).to(device=g.device, dtype=g.dtype)
    return CubicStep(h, lam, max(0.0, decrease), residual, hard, float(values[0]), largest)


def _norm(v: Array) -> float:
    return math.sqrt(float(v @ v))


def _solve(w: Array, c: Array, M: float) -> tuple[Array, float, bool]:
    """(s, lam, hard case) in the eigenbasis."""
    base = max(0.0, -float(w[0]))
    gap = w - w[0] if w[0] <= 0.0 else w
    if base == 0.0 and not c.any():
        return np.zeros_like(c), 0.0, False
    hard = _hard_case(c, gap, base, M)
    if hard is not None:
        return hard, base, True
    d = _root(c, gap, float(w[0]), base, M)
    return -c / (gap + d), base + d, False


def _hard_case(c: Array, gap: Array, base: float, M: float) -> Array | None:
    """The step when g has no part in the lowest eigenspace and what it determines is too short; else None."""
    bottom = gap == 0.0
    if base == 0.0 or c[bottom].any():
        return None
    s = np.divide(-c, gap, out=np.zeros_like(c), where=~bottom)
    rest = (2.0 * base / M) ** 2 - float(s @ s)
    if rest < 0:
        return None
    s[0] = math.sqrt(rest)
    return s


def _root(c: Array, gap: Array, lowest: float, base: float, M: float) -> float:
    """d > 0 with ||s(d)|| = 2 (base + d) / M."""
    left, right = _bracket(c, gap, lowest, M)
    d = right
    for _ in range(_ROUNDS):
        lam = base + d
        parts = c / (gap + d)
        squares = parts * parts
        norm = math.sqrt(float(squares.sum()))
        target = 2.0 * lam / M
        if abs(norm - target) <= 1e-13 * max(norm, target) or norm == 0.0:
            break
        if norm > target:
            left = d
        else:
            right = d
        slope = float((squares / (gap + d)).sum()) / norm**3 + M / (2.0 * lam**2)
        following = d - (1.0 / norm - M / (2.0 * lam)) / slope
        if not left < following < right:
            following = math.sqrt(left * right) if left > 0 and right > 4.0 * left else 0.5 * (left + right)
        if following == d:
            break
        d = following
    return d


def _bracket(c: Array, gap: Array, lowest: float, M: float) -> tuple[float, float]:
    """Where the root lies: all of g in the lowest eigenspace gives the upper end, what is there the lower one."""

    def end(size: float) -> float:
        a = abs(lowest)
        return M * size / (a + math.sqrt(a * a + 2.0 * M * size)) if size > 0 else 0.0

    bottom = _norm(c[gap == 0.0]) if lowest <= 0 else 0.0
    return end(bottom), max(end(_norm(c)), _TINY)
