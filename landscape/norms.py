"""Norms of a layer's weights, their duals, and the steepest direction in each (arXiv 2502.07529).

    norm          ||W||            of W: (out, in) or, for a convolution, (out, in, k, ...) seen as (out, in k ...)
    spectral      k... sqrt(in / out) sigma_max(W)                   dual: sqrt(out / in) / k... times the nuclear norm
    operator      sigma_max(W)                                       the nuclear norm
    sign          (numel / out) max |w|                              sum |g| / (numel / out);  vectors: max |w|, sum |g|
    euclidean     sqrt(sum w^2)                                      the same
    rms           sqrt(mean w^2)                                     numel rms(g)
    column        max over columns of rms(w_j)                       out sum of rms(g_j)
    row           sqrt(numel / out) max over rows of ||w_i||         sum of ||g_i|| / sqrt(numel / out)

k... is the product of the kernel's sizes. `steepest(G)` is the Z of ||Z|| <= 1 with the largest <G, Z> = ||G||_dual,
minus the linear minimisation oracle of the unit ball. "auto" is spectral, and rms for vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

KINDS = ("spectral", "sign", "euclidean", "rms", "column", "row", "operator")

# The quintic of Muon (Jordan et al. 2024): steep at 0, at the price of no fixed point at 1.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def resolve(kind: str, shape: Sequence[int]) -> str:
    """The norm that `kind` means for a parameter of this shape: one of `KINDS`.

    Raises `ValueError` for an unknown kind, and for a norm of matrices on a vector.
    """
    if kind == "auto":
        return "spectral" if len(shape) >= 2 else "rms"
    if kind not in KINDS:
        raise ValueError(f"norm is 'auto' or one of {', '.join(KINDS)}, not {kind!r}")
    if kind in ("spectral", "column", "row", "operator") and len(shape) < 2:
        raise ValueError(f"norm={kind!r} needs matrices, not the shape {tuple(shape)}: use 'auto', 'rms' or 'sign'")
    return kind


def norm(W: Tensor, kind: str = "auto") -> Tensor:
    """||W|| as a float64 scalar. Raises `ValueError` as `resolve`."""
    lengths, up, down = _lengths(W, kind)
    return lengths.amax() * up / down


def dual_norm(G: Tensor, kind: str = "auto") -> Tensor:
    """The largest <G, Z> over ||Z|| <= 1, as a float64 scalar. Raises `ValueError` as `resolve`."""
    lengths, up, down = _lengths(G, kind)
    return lengths.sum() * down / up


def dual_norms(pieces: Iterable[Tensor], norms: Iterable[tuple[str, float]]) -> Tensor:
    """Scale times the dual norm of each piece, `(layers,)` in float64, by its (kind, scale).

    Their sum is dual to the largest ||W|| / scale over the layers. Raises `ValueError` as `resolve`, and where there
    are more of one than of the other.
    """
    return torch.stack([scale * dual_norm(piece, kind) for piece, (kind, scale) in zip(pieces, norms, strict=True)])


def _lengths(W: Tensor, kind: str) -> tuple[Tensor, float, float]:
    """Lengths l and numbers a, b: the norm is max(l) a / b, its dual sum(l) b / a. One of a and b is 1."""
    kind, w = resolve(kind, W.shape), _matrix(W).double()
    if w.numel() == 0:
        return w.sum(), 1.0, 1.0
    if kind in ("spectral", "operator"):
        return torch.linalg.svdvals(w), 1.0, spectral_factor(W.shape) if kind == "spectral" else 1.0
    if kind == "sign":
        return w.abs(), fan_in(W.shape), 1.0
    if kind == "column":
        return torch.linalg.vector_norm(w, dim=0), 1.0, math.sqrt(len(w))
    if kind == "row":
        return torch.linalg.vector_norm(w, dim=1), math.sqrt(w.shape[1]), 1.0
    return torch.linalg.vector_norm(w), 1.0, math.sqrt(w.numel()) if kind == "rms" else 1.0


def polar_factor(matrix: Tensor) -> Tensor:
    """U V^T of the matrix (m, n) = U S V^T; in its dtype, float32 for those of 16 bits.

    Directions whose singular value is within 100 roundings of 0 are left out: the gradient of a softmax layer always
    has one, the sum of its rows, on which its rounding errors would otherwise decide.
    """
    wide = matrix.float() if matrix.dtype.itemsize < 4 else matrix
    U, S, Vh = torch.linalg.svd(wide, full_matrices=False)
    rounding = 100 * torch.finfo(S.dtype).eps * S.amax()
    return (U * S.gt(rounding)) @ Vh


def newton_schulz(matrix: Tensor, steps: int = 5, *, dtype: torch.dtype | None = None) -> Tensor:
    """About U V^T of the matrix (m, n) = U S V^T, by products of matrices alone.

    With 5 steps a singular value above 0.003 of the Frobenius norm ends in [0.68, 1.21], smaller ones below; 0 stays 0.
    `dtype` is that of the products: by itself bfloat16 on an accelerator, where this is fast (and singular values are
    off by another 3 % at most in what was tried), else float32, but float64 for float64.
    """
    if dtype is None:
        low = matrix.device.type != "cpu" and matrix.dtype != torch.float64
        dtype = torch.bfloat16 if low else torch.promote_types(matrix.dtype, torch.float32)
    size = torch.linalg.vector_norm(matrix, dtype=torch.promote_types(matrix.dtype, torch.float32))
    X = (matrix / size.clamp_min(torch.finfo(size.dtype).tiny)).to(dtype)
    tall = X.shape[0] > X.shape[1]
    X = X.mT if tall else X
    a, b, c = _NEWTON_SCHULZ
    for _ in range(steps):
        A = X @ X.mT
        X = torch.addmm(X, torch.addmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


def steepest(G: Tensor, kind: str = "auto", polar: Callable[[Tensor], Tensor] = polar_factor) -> Tensor:
    """The Z with ||Z|| <= 1 and the largest <G, Z>, in the shape of G; 0 for G = 0 (or a zero row or column).

    Args:
        G: a gradient, or a running mean of them.
        kind: "auto" or one of `KINDS`.
        polar: for "spectral" and "operator": `polar_factor` or `newton_schulz`. What comes back is in its dtype.

    Raises:
        ValueError: as `resolve`.
    """
    kind = resolve(kind, G.shape)
    if G.numel() == 0:
        return torch.zeros_like(G)
    if kind in ("spectral", "operator"):
        Z = polar(_matrix(G))
        return (Z * spectral_factor(G.shape) if kind == "spectral" else Z).reshape(G.shape)
    if kind == "sign":
        return G.sign() / fan_in(G.shape)
    g = _matrix(G)
    if kind == "column":
        return (_unit(g, 0) * math.sqrt(len(g))).reshape(G.shape)
    if kind == "row":
        return (_unit(g, 1) / math.sqrt(g.shape[1])).reshape(G.shape)
    whole = _unit(g.reshape(-1), 0).reshape(G.shape)
    return whole * math.sqrt(G.numel()) if kind == "rms" else whole


def _matrix(W: Tensor) -> Tensor:
    """(out, the rest); vectors as one column."""
    return W.reshape(W.shape[0], -1) if W.ndim >= 2 and W.numel() else W.reshape(-1, 1)


def _unit(g: Tensor, dim: int) -> Tensor:
    """Slices along `dim` divided by their norms, 0 where they are 0."""
    wide = g.float() if g.dtype.itemsize < 4 else g
    lengths = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    return wide / lengths.clamp_min(torch.finfo(wide.dtype).tiny)


def spectral_factor(shape: Sequence[int]) -> float:
    """sqrt(out / in) / k..., what the largest singular value is where the norm "spectral" is 1."""
    return math.sqrt(shape[0] / shape[1]) / math.prod(shape[2:])


def fan_in(shape: Sequence[int]) -> int:
    """Of a weight (out, in, k, ...): in k...; 1 for vectors."""
    return math.prod(shape[1:])
