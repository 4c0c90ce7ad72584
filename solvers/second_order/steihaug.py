"""The trust-region sub-problem by truncated CG (Steihaug 1983): least g.h + h.A h / 2 over ||h|| <= radius, about.

CG from h = 0 runs until its residual ||g + A h|| is small, its next iterate would leave the ball, or it meets a
direction of negative curvature; in the last two cases the step ends where its segment meets the sphere. The lengths of
CG's iterates grow and the model falls along all of the way (Steihaug, Theorem 2.1), so the step for a smaller radius is
where the same way meets the smaller sphere: it needs no product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator

Exit = Literal["residual", "boundary", "curvature", "products"]


@dataclass(frozen=True)
class Segment:
    """A piece of the way: from h on along p.

    Attributes:
        p: `(n, 1)`.
        length: of the whole piece in units of p; inf for a direction of negative curvature.
        hh, hp, pp: inner products of h and p.
        model: g.h + h.A h / 2 where it begins.
        slope, bend: of the model along p: it is model + t slope + t^2 bend / 2.
    """

    p: Tensor
    length: float
    hh: float
    hp: float
    pp: float
    model: float
    slope: float
    bend: float

    def to_sphere(self, radius: float) -> float:
        """The t >= 0 with ||h + t p|| = radius, for ||h|| <= radius."""
        left = max(0.0, radius**2 - self.hh)
        root = math.sqrt(self.hp**2 + self.pp * left)
        return left / (self.hp + root) if self.hp >= 0 else (root - self.hp) / self.pp


@dataclass
class Way:
    """CG's way within a ball, and where it ends in smaller ones.

    Attributes:
        segments: from 0 on.
        exit: why it ended.
        products: made.
        lowest: the smallest Ritz value met; nan without products.
    """

    segments: list[Segment] = field(default_factory=list)
    exit: Exit = "residual"
    products: int = 0
    lowest: float = math.nan

    def to(self, radius: float) -> tuple[Tensor | None, float, bool]:
        """(h, the model's decrease, whether ||h|| = radius) for a radius up to that of the ball; None for h = 0."""
        h: Tensor | None = None
        decrease = 0.0
        for piece in self.segments:
            t = min(piece.length, piece.to_sphere(radius))
            h = t * piece.p if h is None else h + t * piece.p
            decrease = -(piece.model + t * piece.slope + 0.5 * t**2 * piece.bend)
            if t < piece.length:
                return h, decrease, True
        return h, decrease, False


def steihaug(A: LinearOperator, g: Tensor, radius: float, *, tol: float, max_products: int) -> Way:
    """CG's way in the ball.

    Args:
        A: symmetric, any inertia.
        g: `(n,)`.
        radius: > 0.
        tol: of the residual, relative to ||g||.
        max_products: with A.

    Raises `FloatingPointError` when a product is not finite.
    """
    r = A.space.columns(g)
    p = -r
    rr = first = float(A.inner(r, r))
    hh = hp = model = 0.0
    pp = rr
    steps: list[float] = []  # 1 / alpha and beta of CG, which make Lanczos' tridiagonal matrix
    ratios: list[float] = []
    way = Way()
    if rr == 0.0:
        return way
    while True:
        if way.products >= max_products:
            way.exit = "products"
            break
        Ap = A @ p
        way.products += 1
        bend = float(A.inner(p, Ap))
        if not math.isfinite(bend):
            raise FloatingPointError("a product with the Hessian is not finite")
        steps.append(bend / rr)
        # r.p = -||r||^2, for r is orthogonal to the direction before
        if bend <= 0.0:
            way.segments.append(Segment(p, math.inf, hh, hp, pp, model, -rr, bend))
            way.exit = "curvature"
            break
        alpha = rr / bend
        way.segments.append(Segment(p, alpha, hh, hp, pp, model, -rr, bend))
        model -= 0.5 * alpha * rr
        hh, hp = hh + 2.0 * alpha * hp + alpha**2 * pp, hp + alpha * pp
        if hh >= radius**2:
            way.exit = "boundary"
            break
        r = r + alpha * Ap
        new = float(A.inner(r, r))
        if math.sqrt(new) <= tol * math.sqrt(first):
            break
        beta, rr = new / rr, new
        ratios.append(beta)
        p = -r + beta * p
        hp, pp = beta * hp, float(A.inner(p, p))
    way.lowest = _lowest(steps, ratios)
    A.release()
    return way


def _lowest(steps: list[float], ratios: list[float]) -> float:
    """The smallest eigenvalue of the tridiagonal matrix of the Lanczos process behind CG; nan without steps."""
    if not steps:
        return math.nan
    T = torch.zeros(len(steps), len(steps), dtype=torch.float64)
    for j, step in enumerate(steps):
        T[j, j] = step + (ratios[j - 1] * steps[j - 1] if j else 0.0)
        if j:
            T[j, j - 1] = T[j - 1, j] = math.sqrt(ratios[j - 1]) * steps[j - 1]
    return float(torch.linalg.eigvalsh(T)[0])
