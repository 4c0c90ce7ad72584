"""The one Krylov process: an orthonormal basis Q, the projected matrix H = Q^T A Q and pending candidates C with

    A Q = Q H + C B,    Q^T C = 0,

kept to rounding at every moment, whatever is appended. With one start vector, always proposing its remainder,
this is Lanczos with full reorthogonalisation (Paige 1972; twice is enough: Giraud, Langou, Rozloznik 2005);
with several it is block Lanczos that may go on with any combination of the remainders; after `restart` it is
thick-restart Lanczos (Wu and Simon 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor
from torch.nn.functional import pad

from landscape.operators.linear import LinearOperator, products, require_finite
from landscape.operators.vectors import orthonormal
from landscape.spectra.basis.basis import Basis
from landscape.spectra.basis.place import BasisChoice, Where, choose_place
from landscape.spectra.carried import carries_check
from landscape.spectra.results import Tridiagonal

# A remainder below this many roundings of the product is rounding itself: it carries no direction of A.
_NOISE = 10.0

# Vectors beside the basis of a single chain: the candidate, its product, and what makes one of the other.
BESIDE = 4


@dataclass(frozen=True)
class Ritz:
    """Ritz values (ascending), vectors in the basis, and what remains: ||C B s|| and the asymmetry of H."""

    values: Tensor
    coefficients: Tensor
    pending: Tensor
    asymmetry: Tensor

    @property
    def residuals(self) -> Tensor:
        """||A u - theta u|| per Ritz pair, up to rounding."""
        return (self.pending**2 + self.asymmetry**2).sqrt()


class Krylov:
    """The process. A round is: `X = propose(...)` or `inject(...)`, then `absorb(A @ X)`.

    Beyond `capacity` basis vectors the oldest are forgotten: only H of a single chain has a meaning then.

    Attributes:
        size: basis vectors, including those proposed and not yet absorbed.
        H: (size, size) float64 on the host.
        basis: Q, the latest `capacity` of its columns.
        pending, B: C, (n, p), the candidates; (p, size), their coefficients.
        gram: (p, p), C^T C.
        scale: the largest ||A q|| seen, what noise is measured against.
    """

    def __init__(self, A: LinearOperator, capacity: int, where: Where = "device") -> None:
        self.A, self.space = A, A.space
        self.capacity = max(1, min(capacity, A.shape[0]))
        self.size = 0
        self.scale = 0.0
        self.H = torch.zeros(0, 0, dtype=torch.float64)
        self.B = torch.zeros(0, 0, dtype=torch.float64)
        self.gram = torch.zeros(0, 0, dtype=torch.float64)
        self.pending = self.space.zeros(0)
        self.basis = Basis(self.space, self.capacity, where)

    @property
    def exhausted(self) -> bool:
        """The basis spans the whole space."""
        return self.size >= self.A.shape[0]

    # -- growing ---------------------------------------------------------------------------------------

    def inject(self, V: Tensor) -> Tensor:
        """Start new chains: what is new in the columns of V, orthonormalised; (n, b), b may be 0.

        Columns are scaled to 1 first; zero and dependent ones fall away. Raises `ValueError` for columns that
        are not finite.
        """
        norms = self.space.inner(V, V).diagonal().sqrt()
        if not bool(torch.isfinite(norms).all()):
            raise ValueError("a start vector has entries that are not finite")
        scaled = self.space.combine(V, torch.diag(1.0 / norms)[:, norms > 0])
        X = orthonormal(self.space, scaled, self.basis.project, floor=100.0 * torch.finfo(V.dtype).eps)
        return self._append(X[..., : self.A.shape[0] - self.size])

    def propose(self, directions: Tensor | None = None) -> Tensor:
        """Take combinations of the pending candidates into the basis: (n, b) orthonormal, b may be 0.

        directions: (p, b) with orthonormal columns; by default the first candidate.
        """
        p = self.pending.shape[-1]
        if p == 0 or self.exhausted:
            return self.pending[..., :0]
        if p > 1 and directions is not None:
            # rotating C and B together changes nothing in C B
            Z = torch.linalg.qr(directions, mode="complete").Q
            self.pending, self.B = self.space.combine(self.pending, Z), Z.T @ self.B
        b = 1 if directions is None else min(directions.shape[-1], p, self.A.shape[0] - self.size)
        if b > 1:
            return self._append(orthonormal(self.space, self.pending[..., :b], self.basis.project, self._floor()))
        # the second orthogonalisation of a candidate happens here, when it is needed
        X, rest = self.pending[..., :1], self.pending[..., 1:]
        norm = 0.0
        for _ in range(4):
            g, X = self.basis.orthogonalise(X)
            self.H[-len(g) :] += g @ self.B[:1]
            norm = float(self.space.inner(X, X).sqrt())
            if norm <= self._floor() or float(g.norm()) <= 0.1 * norm:
                break
        row, self.B, self.pending = self.B[:1], self.B[1:], rest
        if norm <= self._floor():
            self._measure()
            return X[..., :0]
        m = self.size
        X = self._append(X * (1.0 / norm))
        self.H[m:, :m] += norm * row
        return X

    def advance(self, steps: int) -> None:
        """Steps of Lanczos: the product with the first candidate each; fewer where none is left."""
        for _ in range(steps):
            X = self.propose()
            if X.shape[-1] == 0:
                break
            self.absorb(self.A @ X)

    def _append(self, V: Tensor) -> Tensor:
        """Orthonormal columns, orthogonal to the basis, become part of it; the candidates are projected."""
        m, b = self.size, V.shape[-1]
        if b == 0:
            return V
        self.H = pad(self.H, (0, b, 0, b))
        if self.pending.shape[-1]:
            c = self.space.inner(V, self.pending)
            self.pending = self.pending - self.space.combine(V, c)
            self.H[m:, :m] = c @ self.B
        self.B = pad(self.B, (0, b))
        self.basis.append(V)
        self.size = m + b
        return V

    def absorb(self, W: Tensor) -> None:
        """Take W = A X for the X that was proposed last. Raises `FloatingPointError` when W is not finite."""
        m, b = self.size, W.shape[-1]
        if b == 0:
            return
        h, W = self.basis.orthogonalise(W, exact=False)
        self.H[-len(h) :, m - b :] = h
        self.B = torch.cat([self.B, pad(torch.eye(b, dtype=torch.float64), (m - b, 0))])
        self.pending = torch.cat([self.pending, W], dim=-1) if self.pending.shape[-1] else W
        self._measure(h)

    def _measure(self, h: Tensor | None = None) -> None:
        """Norms of the candidates; those that are rounding are dropped (B has rows of norm <= 1)."""
        self.gram = self.space.inner(self.pending, self.pending)
        squares = self.gram.diagonal()
        require_finite(self.A, squares)
        if h is not None:
            require_finite(self.A, h)
            lengths = (h**2).sum(dim=0) + squares[-h.shape[1] :]
            self.scale = max(self.scale, float(lengths.max().sqrt()))
        keep = squares.sqrt() > self._floor()
        if not bool(keep.all()):
            self.pending = self.space.combine(self.pending, torch.eye(len(keep), dtype=torch.float64)[:, keep])
            self.B, self.gram = self.B[keep], self.gram[keep][:, keep]

    def _floor(self) -> float:
        return _NOISE * torch.finfo(self.A.dtype).eps * self.scale

    # -- looking and shrinking --------------------------------------------------------------------------

    def ritz(self) -> Ritz:
        """Rayleigh-Ritz on the basis, all of it absorbed."""
        symmetric = 0.5 * (self.H + self.H.T)
        values, S = torch.linalg.eigh(symmetric)
        Y = self.B @ S
        left = (Y * (self.gram @ Y)).sum(dim=0).clamp(min=0.0).sqrt()
        return Ritz(values, S, left, ((self.H - symmetric) @ S).norm(dim=0))

    def largest(self) -> tuple[float, float]:
        """Of a single chain, the largest |Ritz value| and its residual, up to rounding."""
        if self.size == 0:
            return 0.0, 0.0
        alpha, beta = self.H.diagonal().numpy(), self.H.diagonal(-1).numpy()
        ends = [eigh_tridiagonal(alpha, beta, select="i", select_range=(i, i)) for i in (0, self.size - 1)]
        (value,), vector = max(ends, key=lambda found: abs(found[0][0]))
        return abs(float(value)), float(self.gram.trace().sqrt()) * abs(float(vector[-1, 0]))

    def enlarge(self, capacity: int) -> None:
        """Room for more basis vectors, in a process that has forgotten none."""
        self.capacity = self.basis.capacity = max(self.capacity, capacity)

    def combine(self, S: Tensor) -> Tensor:
        """Q S."""
        return self.basis.combine(S)

    def restart(self, S: Tensor) -> None:
        """Shrink the basis to Q S, S with orthonormal columns that span Ritz vectors; the candidates stay."""
        self.basis.restart(S)
        self.size = S.shape[1]
        self.H, self.B = S.T @ self.H @ S, self.B @ S

    # -- state in the open ------------------------------------------------------------------------------

    def tridiagonal(self) -> Tridiagonal:
        """The state of a single chain."""
        residual = self.pending[..., 0] if self.pending.shape[-1] else self.space.zeros(1)[..., 0]
        alpha, beta = self.H.diagonal().clone(), self.H.diagonal(-1).clone()
        return Tridiagonal(alpha, beta, self.basis.tensor(), residual.clone(), footprint=self.basis.footprint)

    def resume(self, state: Tridiagonal) -> None:
        """Go on from `state`, in a process that has not begun."""
        for i in range(state.basis.shape[-1]):
            self.basis.append(self.space.columns(state.basis[..., i : i + 1]))
        self.size = self.basis.size
        self.H = state.matrix
        self.scale = float(self.H.abs().sum(dim=0).max())
        self.pending = self.space.columns(state.residual)
        self.B = pad(torch.ones(1, 1, dtype=torch.float64), (self.size - 1, 0))
        self._measure()


@carries_check
def lanczos(A: LinearOperator, v: Tensor | Tridiagonal, steps: int, *, basis: BasisChoice = "auto") -> Tridiagonal:
    """Lanczos with full reorthogonalisation: `steps` products from v, or `steps` more from a Tridiagonal.

    v: `(n,)`, any non-zero length. Returns a `Tridiagonal`; it has fewer steps when the Krylov space is
    exhausted before. Resuming gives the same numbers as one long run, to rounding.

    basis: where Q lies, and in the result: on the "device", in "host" memory or on "disk", in a file that is gone with
    the last tensor on it. "auto" is the first of them where it fits: into `A.memory`, into half of what the host has
    free, into half of what the disk has.

    Raises `ValueError` for a zero or not finite v or steps < 1, `FloatingPointError` for a product that is not
    finite, `MemoryError` when the basis does not fit there.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import lanczos
        >>> A = MatrixOperator(torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 2.0]]))
        >>> T = lanczos(A, torch.tensor([1.0, 0.0, 0.0]), steps=2)
        >>> lanczos(A, T, steps=1).matrix.round(decimals=3).tolist()
        [[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 2.0]]
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    start = A.space.columns(v.basis[..., :1] if isinstance(v, Tridiagonal) else v)
    if start.shape[-1] != 1:
        raise ValueError(f"lanczos starts from one vector, not {start.shape[-1]}")
    capacity = min(A.shape[0], steps + (v.basis.shape[-1] if isinstance(v, Tridiagonal) else 0))
    place = choose_place(A, basis, enough=capacity, beside=BESIDE)
    if place.columns < capacity:
        raise MemoryError(
            f"{capacity} basis vectors of {A.space.column_bytes:,} bytes do not fit: the budget of {A.memory:,} bytes, "
            f"with {BESIDE} vectors for the work, has room for {place.columns} of them {place.words}"
        )
    process = Krylov(A, capacity, place.where)
    try:
        process.basis.reserve(capacity)
        if isinstance(v, Tridiagonal):
            process.resume(v)
        else:
            X = process.inject(start)
            if X.shape[-1] == 0:
                raise ValueError("the start vector of lanczos is zero")
            process.absorb(products(A, X))
            steps -= 1
        process.advance(steps)
        return process.tridiagonal()
    finally:
        process.basis.close()
        A.release()
