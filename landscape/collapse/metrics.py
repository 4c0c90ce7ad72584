"""The metrics of neural collapse, from class means, the scatter within classes and the last layer's weight.

Definitions of arXiv 2602.16642 (appendix B) as its tables report them; NC1 to NC4 go back to Papyan, Han and Donoho
(2020). With P classes present, M `(P, D)` the class means minus their (unweighted) mean mu_G, W the weight,
|.| the Frobenius norm, and M* = (I - J/P) / sqrt(P - 1) the simplex, whose norm is 1:

    NC0   ||W^T 1||_2
    NC1   tr(Sigma_W Sigma_B^+) / P,  Sigma_W = scatter / samples,  Sigma_B = M^T M / P
    NC2   | M M^T / |M M^T| - M* |
    NC3   | W / |W| - M / |M| |
    NC4   how often argmax W h is the nearest class mean
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps


class Agreement(NamedTuple):
    """Counts of the second pass: the nearest mean agrees with the head without and with its bias; both with labels."""

    head: int = 0
    head_with_bias: int = 0
    right: int = 0
    nearest_right: int = 0
    samples: int = 0

    def shares(self) -> tuple[float, ...]:
        """The counts but for the last as shares of the samples; nan without samples."""
        return tuple(count / self.samples if self.samples else math.nan for count in self[:-1])


@dataclass(frozen=True)
class CollapseMetrics:
    """How far features and last layer are from collapse: all metrics go to 0 with it, but for the rates near 1.

    They carry no prefactor, as the paper's tables; `printed` gives what its formulas say. K is the number of classes
    (rows of W), P that of the classes present. What looks at the weight alone takes all K rows, what looks at the
    features the P classes present, and what compares the two those classes' rows. A network without any spread
    between classes has rank 0, nc1 inf and nan for what divides by it.

    Attributes:
        nc0: ||W^T 1||_2, in units of the weights; the norm of the sum of W's rows.
        nc0_normalized: ||W^T 1||_2 / |W|, between 0 and sqrt(K).
        nc1: tr(Sigma_W Sigma_B^+) / P, the pseudo-inverse through `rank` directions.
        nc1_traces: tr(Sigma_W) / tr(Sigma_B) (Tirer et al. 2023).
        cdnv: mean over pairs of classes of (v_i + v_j) / (2 ||mu_i - mu_j||^2) with v the variance in a class
            (Galanti et al. 2022).
        nc2: distance of the means' Gram matrix to the simplex.
        nc2_norms: standard deviation (unbiased) / average of the norms of M's rows.
        nc2_angles: mean over pairs of |cos + 1/(P-1)| of M's rows.
        nc2_weight, nc2_weight_norms, nc2_weight_angles: the same of W's K rows, which are not centred.
        nc2_product: | W M^T / |W M^T| - M* |, the NC3 of Zhu et al. 2021.
        nc3: distance of W to M after each is divided by its norm, between 0 and 2; near sqrt(2) at random.
        nc4: share of samples on which argmax W h, without the bias, is the nearest class mean; nan without a second
            pass. An agreement: it goes to 1.
        nc4_bias: the same with argmax W h + b.
        accuracy: share of samples that argmax W h + b gets right; nan without a second pass.
        nearest_accuracy: share of samples whose nearest class mean is that of their class; nan without.
        bias_collapse: ||b + W mu_G||_2 (Zhu et al. 2021); b is 0 for a head without one.
        bias_sum: |sum of b|, which follows the recursion of nc0; nan for a head without a bias.
        smallest_singular: smallest of the min(K, D) singular values of W.
        weight_norm: |W|.
        rank: directions in which class means differ: at most P - 1 and D, less where a difference is rounding.
        classes: P.
        samples: how many features the means are of.
        dim: D.
        counts: `(K,)` int64 on the host, samples per class.
    """

    nc0: float
    nc0_normalized: float
    nc1: float
    nc1_traces: float
    cdnv: float
    nc2: float
    nc2_norms: float
    nc2_angles: float
    nc2_weight: float
    nc2_weight_norms: float
    nc2_weight_angles: float
    nc2_product: float
    nc3: float
    nc4: float
    nc4_bias: float
    accuracy: float
    nearest_accuracy: float
    bias_collapse: float
    bias_sum: float
    smallest_singular: float
    weight_norm: float
    rank: int
    classes: int
    samples: int
    dim: int
    counts: Tensor = field(repr=False)

    @property
    def printed(self) -> dict[str, float]:
        """The metrics with the prefactors of the paper's formulas, which its tables do not have.

        NC0 and its normalised variant carry 1/D, NC2 and its variants of W W^T and W M 1/K^2, NC3 1/(K D); NC1 and
        NC4 are as they are. K is the number of classes that the metric looks at.
        """
        K, D, P = len(self.counts), self.dim, self.classes
        return {
            "nc0": self.nc0 / D,
            "nc0_normalized": self.nc0_normalized / D,
            "nc1": self.nc1,
            "nc2": self.nc2 / P**2,
            "nc2_weight": self.nc2_weight / K**2,
            "nc2_product": self.nc2_product / P**2,
            "nc3": self.nc3 / (P * D),
            "nc4": self.nc4,
        }

    def __str__(self) -> str:
        missing = f", {len(self.counts) - self.classes} without samples" if self.classes < len(self.counts) else ""
        rate = "not measured" if math.isnan(self.nc4) else f"{self.nc4:.4g}"
        return (
            f"NC0 {self.nc0:.4g}, NC1 {self.nc1:.4g}, NC2 {self.nc2:.4g}, NC3 {self.nc3:.4g}, NC4 {rate} "
            f"({self.samples} samples, {len(self.counts)} classes{missing})"
        )


def check_head(
    weight: Tensor, bias: Tensor | None, num_classes: int, dim: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Weight `(K, D)` and bias `(K,)` in float64 on the device. Raises `ValueError` for other shapes."""
    if weight.shape != (num_classes, dim):
        raise ValueError(
            f"the weight must have the shape (classes, dim) = {(num_classes, dim)}, not {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != (num_classes,):
        raise ValueError(f"the bias must have the shape ({num_classes},), not {tuple(bias.shape)}")
    W = weight.detach().to(device, torch.float64)
    return W, None if bias is None else bias.detach().to(device, torch.float64)


@torch.no_grad()
def collapse_metrics(
    counts: Tensor,
    means: Tensor,
    scatter: Tensor,
    traces: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    shift: Tensor | None = None,
    agreement: Agreement | None = None,
    rounding: float = _EPS,
) -> CollapseMetrics:
    """`CollapseMetrics` from statistics as `CollapseStatistics` keeps them, computed in float64 on their device.

    Args:
        counts, means, scatter, traces: `(K,)`, `(K, D)`, `(D, D)`, `(K,)`.
        weight, bias: `(K, D)` and `(K,)` or None.
        shift: `(D,)`, what the means are relative to; default the origin.
        agreement: counts of the second pass; None leaves nc4 and the accuracies nan.
        rounding: relative rounding of the features: smaller differences between class means are not counted.

    Raises:
        ValueError: samples of fewer than two classes; a weight or bias of another shape, or not finite.

    Example:
        >>> import torch
        >>> from landscape.collapse import collapse_metrics
        >>> counts, means, scatter, traces = torch.ones(2), torch.eye(2), torch.zeros(2, 2), torch.zeros(2)
        >>> found = collapse_metrics(counts, means.double(), scatter.double(), traces.double(), weight=means - 0.5)
        >>> round(found.nc0, 6), round(found.nc2, 6), round(found.nc3, 6)
        (0.0, 0.0, 0.0)
    """
    K, D = means.shape
    W, b = check_head(weight, bias, K, D, means.device)
    if not bool(torch.isfinite(W).all()) or not (b is None or bool(torch.isfinite(b).all())):
        raise ValueError("the last layer has entries that are not finite: the network has diverged")
    here = torch.nonzero(counts > 0).squeeze(1)
    P = len(here)
    if P < 2:
        have = "no class has samples" if P == 0 else f"only class {int(here[0])} has samples"
        raise ValueError(f"{have}: neural collapse compares the means of at least two classes")
    n, mu, own, W_here = counts[here], means[here], traces[here], W[here]
    center = mu.mean(0)
    M = mu - center
    if shift is not None:
        mu, center = mu + shift, center + shift
    samples = float(n.sum())
    noise = max(max(P, D) * _EPS, rounding / float(n.min()) ** 0.5)
    cut = noise * P**0.5 * float(torch.linalg.vector_norm(mu, dim=1).max())
    nc1, rank = _nc1(M, scatter / samples, cut)
    within, between = float(own.sum()) / samples, float(M.square().sum()) / P
    nc4, nc4_bias, accuracy, nearest_accuracy = (agreement or Agreement()).shares()
    norm = float(torch.linalg.matrix_norm(W))
    row_sum = float(torch.linalg.vector_norm(W.sum(0)))
    return CollapseMetrics(
        nc0=row_sum,
        nc0_normalized=_quotient(row_sum, norm),
        nc1=nc1,
        nc1_traces=_quotient(within, between),
        cdnv=_cdnv(M, own / n),
        nc2=_to_simplex(M @ M.T),
        nc2_norms=_norms(M),
        nc2_angles=_angles(M),
        nc2_weight=_to_simplex(W @ W.T),
        nc2_weight_norms=_norms(W),
        nc2_weight_angles=_angles(W),
        nc2_product=_to_simplex(W_here @ M.T),
        nc3=float(torch.linalg.matrix_norm(_unit(W_here) - _unit(M))),
        nc4=nc4,
        nc4_bias=nc4_bias,
        accuracy=accuracy,
        nearest_accuracy=nearest_accuracy,
        bias_collapse=float(torch.linalg.vector_norm(W @ center + (0.0 if b is None else b))),
        bias_sum=math.nan if b is None else abs(float(b.sum())),
        smallest_singular=float(torch.linalg.svdvals(W)[-1]),
        weight_norm=norm,
        rank=rank,
        classes=P,
        samples=round(samples),
        dim=D,
        counts=counts.cpu().long(),
    )


def _nc1(M: Tensor, Sigma_W: Tensor, cut: float) -> tuple[float, int]:
    """tr(Sigma_W (M^T M / P)^+) / P = sum over i of v_i^T Sigma_W v_i / s_i^2 with M = U diag(s) V^T, and the rank."""
    _, s, Vh = torch.linalg.svd(M, full_matrices=False)
    rank = min(len(M) - 1, int((s > cut).sum()))
    if rank == 0:
        return (math.inf if float(Sigma_W.diagonal().sum()) > 0.0 else math.nan), 0
    V = Vh[:rank]
    return float((((V @ Sigma_W) * V).sum(1) / s[:rank].square()).sum()), rank


def _cdnv(M: Tensor, variances: Tensor) -> float:
    P = len(M)
    i, j = torch.triu_indices(P, P, 1, device=M.device)
    apart = torch.cdist(M, M, compute_mode="donot_use_mm_for_euclid_dist")[i, j].square()
    return float(((variances[i] + variances[j]) / (2.0 * apart)).mean())


def _to_simplex(A: Tensor) -> float:
    """| A / |A| - M* |."""
    P = len(A)
    simplex = (torch.eye(P, dtype=A.dtype, device=A.device) - 1.0 / P) / math.sqrt(P - 1)
    return float(torch.linalg.matrix_norm(_unit(A) - simplex))


def _norms(A: Tensor) -> float:
    norms = torch.linalg.vector_norm(A, dim=1)
    return float(norms.std() / norms.mean())


def _angles(A: Tensor) -> float:
    P = len(A)
    rows = A / torch.linalg.vector_norm(A, dim=1, keepdim=True)
    i, j = torch.triu_indices(P, P, 1, device=A.device)
    return float(((rows @ rows.T)[i, j] + 1.0 / (P - 1)).abs().mean())


def _unit(A: Tensor) -> Tensor:
    return A / torch.linalg.matrix_norm(A)


def _quotient(a: float, b: float) -> float:
    if b == 0.0:
        return math.nan if a == 0.0 else math.inf
    return a / b
