"""The proof that no eigenvalue is missed: a-posteriori bounds for a symmetric A of which some Ritz pairs are known.

With U the Ritz vectors that have nearly converged, A = [[Theta, E^T], [E, M]] in the basis (U, complement).

1. A Lanczos chain on M from a random start q. Its orthonormal polynomials pi_j bound the part that q can have in
   an eigenvector x of M with eigenvalue above t: <x, q>^2 <= 1 / sum_j pi_j(t)^2 (Christoffel function), while
   a random q has |<x, q>| <= eta with probability at most sqrt(2 n / pi) eta. So a large sum says that nothing is
   there. This is the gap-free argument of Kuczynski and Wozniakowski (1992), with the polynomials that the chain
   has built in place of Chebyshev's, which they dominate.
2. With M <= m I, A <= [[Theta, E^T], [E, m I]]: the eigenvalues of that small matrix are upper bounds of those of
   A, one by one, multiplicities included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from landscape.spectra.krylov import Krylov
from landscape.spectra.results import tridiagonal
from landscape.spectra.task import Claim, key

# A pair joins U while its residual is below this share of its distance to the threshold, and all of them while they
# use up at most this share of what is free between the threshold and the other pairs. Against a share of tol only
# that saves 2-4 products of 20-24 for the top 5 of a small network's Hessian and for k = 1 among outliers, costs
# about 2 of 25-29 where the wanted pairs belong to a cluster narrower than tol, and hardly matters elsewhere.
_SETTLED = 0.3
_COUPLING = 0.3


def largest_overlap(alpha: Tensor, beta: Tensor, x: float) -> float:
    """The largest part |<x, q>| that a chain's start can have in an eigenvector with eigenvalue >= x.

    alpha: (t,), beta: (t,) positive, the last one the norm of the remainder. 1.0 unless x is above the chain's
    Ritz values.
    """
    previous, current, total, last = 0.0, 1.0, 1.0, 0.0
    for a, b in zip(alpha.tolist(), beta.tolist(), strict=True):
        previous, current = current, ((x - a) * current - last * previous) / b
        if not current > 0.0:  # a Ritz value of a leading part lies above x
            return 1.0
        total += current * current
        last = b
        if total > 1e40:
            break
    return 1.0 / math.sqrt(total)


def companions(values: Tensor, pending: Tensor, claims: Sequence[Claim], tolerance: float) -> Tensor:
    """Which unwanted Ritz pairs to take into U as well, so that the chain need not meet them; indices into them.

    What is chosen decides how long the chain is, not whether its bounds hold.

    Args:
        values, pending: of the unwanted pairs.
        claims: what is to be proved. A pair is taken that loosens none of them much.
        tolerance: that they leave.
    """
    taken = torch.ones(len(values), dtype=torch.bool)
    for claim in claims:
        chosen = torch.zeros_like(taken)
        chosen[_loosening_least(key(claim.signs, values), pending, claim.last + tolerance, tolerance)] = True
        taken &= chosen
    return taken.nonzero()[:, 0]


def _loosening_least(values: Tensor, pending: Tensor, threshold: float, least: float) -> Tensor:
    """Those that loosen the bound least, while most of what is free between the threshold and all others, or of
    `least`, is left. Larger values are nearer to the threshold.
    """
    distance = (threshold - values).clamp(min=1e-300)
    shift = pending**2 / distance  # what coupling to a pair adds to the bound, at most
    shift[(pending > _SETTLED * distance) & (shift > _COUPLING * least)] = math.inf
    shift, order = shift.sort()
    left = (values + pending)[order].flip(0).cummax(0).values.flip(0)
    room = (threshold - left.roll(-1)).clamp(min=least)
    room[-1:] = least
    fits = (shift.cumsum(0) <= _COUPLING * room).nonzero()[:, 0]
    return order[: int(fits[-1]) + 1 if len(fits) else 0]


class Chain:
    """Lanczos on M from a random start, in the coordinates of a Krylov basis that grows with it.

    Because A Q = Q H + C B is known, a chain vector Q z needs one new product only: that with the direction C B z.

    Args:
        floor: relative error of a product.
        space: the process whose basis it shares; its last vector is what the random start added.
        start: (m,), coordinates of the random start.
        S: (at most m, r), coordinates of U, the wanted ones first.
        wanted: how many these are.
        reach, coupling: the largest |Ritz value| of U and ||E||.
    """

    def __init__(
        self, floor: float, space: Krylov, start: Tensor, S: Tensor, wanted: int, reach: float, coupling: float
    ) -> None:
        self.floor, self.space, self.wanted, self.reach, self.coupling = floor, space, wanted, reach, coupling
        self.S = S = pad(S, (0, 0, 0, len(start) - len(S)))
        z = start - S @ (S.T @ start)
        self.Z = (z / z.norm()).reshape(-1, 1)
        self.alpha = self.beta = torch.zeros(0, dtype=torch.float64)

    def measure(self) -> None:
        """alpha and beta of the last vector, whose product is known. No product is made."""
        self._pad()
        z = self.Z[:, -1]
        image, y = self._apply(z), self.space.B @ z
        square = self._remainder(image).norm() ** 2 + y @ (self.space.gram @ y)
        self.alpha = torch.cat([self.alpha, (z @ image).reshape(1)])
        self.beta = torch.cat([self.beta, square.clamp(min=0.0).sqrt().reshape(1)])

    def direction(self) -> Tensor | None:
        """The combination of candidates (p, 1) that the next vector needs; None when it needs none."""
        y = self.space.B @ self.Z[:, -1]
        norm = float(y.norm())
        return (y / norm).reshape(-1, 1) if norm > 0.0 else None

    def advance(self) -> bool:
        """The next chain vector, after its direction entered the basis; False when the chain has ended."""
        self._pad()
        z = self._remainder(self._apply(self.Z[:, -1]))
        norm = float(z.norm())
        if norm <= self._smallest():
            return False
        z = self._remainder(z / norm)
        self.Z = torch.cat([self.Z, (z / z.norm()).reshape(-1, 1)], dim=1)
        return True

    def _pad(self) -> None:
        """The basis has grown: old vectors have no part in the new directions."""
        grown = (0, 0, 0, self.space.size - len(self.Z))
        self.Z, self.S = pad(self.Z, grown), pad(self.S, grown)

    def _smallest(self) -> float:
        return self.floor * self.space.scale + 1e-300

    def _apply(self, z: Tensor) -> Tensor:
        H = self.space.H
        return 0.5 * (H @ z + H.T @ z)

    def _remainder(self, v: Tensor) -> Tensor:
        for _ in range(2):
            v = v - self.S @ (self.S.T @ v)
            v = v - self.Z @ (self.Z.T @ v)
        return v

    # -- bounds: `signs` name the end of the spectrum, see `ENDS` ----------------------------------------------

    def doubt(self, x: float, n: int, signs: Sequence[float] = (1.0,)) -> float:
        """Probability that an eigenvalue of M above x has stayed hidden from this chain."""
        beta = self.beta.clamp(min=self._smallest())
        part = max(largest_overlap(sign * self.alpha, beta, x) for sign in signs)
        return min(1.0, math.sqrt(2.0 * n / math.pi) * part)

    def level(self, highest: float, n: int, risk: float, signs: Sequence[float]) -> float | None:
        """The smallest level <= highest above which no eigenvalue of M is left, or None."""
        if self.doubt(highest, n, signs) > risk:
            return None
        lo = min(highest, float(key(signs, self.alpha).max()))
        for _ in range(12):
            middle = 0.5 * (lo + highest)
            lo, highest = (lo, middle) if self.doubt(middle, n, signs) <= risk else (middle, highest)
        return highest

    def top(self, signs: Sequence[float]) -> float:
        """The chain's own largest Ritz value (of sign * M, over all signs): no level can be lower."""
        return float(key(signs, torch.linalg.eigvalsh(tridiagonal(self.alpha, self.beta[:-1]))).max())

    def upper_bounds(self, level: float, signs: Sequence[float], wanted: Tensor | None = None) -> Tensor:
        """Upper bounds of the largest of sign * lambda, over all signs, descending, given M <= level.

        wanted: (m, k), the wanted Ritz vectors as refined since the chain began, to take in place of the first ones
        of U. U turns by an angle of sine s by that, which adds at most s^2 (max |theta| - level) + 2 s ||E|| to the
        level.
        """
        self._pad()
        G = self.S
        if wanted is not None:
            G = self._span(wanted)
            s = float(torch.linalg.matrix_norm(self.S - G @ (G.T @ self.S), 2))
            level += s * s * max(0.0, self.reach - level) + 2.0 * s * self.coupling
        space = self.space
        H = 0.5 * (space.H + space.H.T)
        image = H @ G
        T = G.T @ image
        squares, V = torch.linalg.eigh(space.gram)
        outside = (squares.clamp(min=0.0).sqrt()[:, None] * V.T) @ (space.B @ G)
        E = torch.linalg.qr(torch.cat([image - G @ T, outside])).R
        corner = level * torch.eye(E.shape[0], dtype=torch.float64)
        found = [torch.full((G.shape[1],), level, dtype=torch.float64)]
        for sign in signs:
            rows = torch.cat([sign * T, E.T], dim=1)
            found.append(torch.linalg.eigvalsh(torch.cat([rows, torch.cat([E, corner], dim=1)])))
        return torch.cat(found).sort(descending=True).values

    def _span(self, wanted: Tensor) -> Tensor:
        """An orthonormal basis of the refined wanted vectors and the others of the start."""
        k = wanted.shape[1]
        others = self.S[:, k:]
        for _ in range(2):
            others = others - wanted @ (wanted.T @ others)
        U, sizes, _ = torch.linalg.svd(others, full_matrices=False)
        return torch.cat([wanted, U[:, sizes > 0.5]], dim=1)
