"""One call of attention, and what it adds to the entropies of its heads.

With queries q_i and keys k_j of inputs x_i and y_j, the mean-free part of a row of logits has at most the norm

    |(x_i, 1)| ||(W_Q, b_Q)^T W_K||_2 ||Y - 1 m^T||_2 / sqrt(d)    for the row's bound, for any m: the mean of the y_j
    ||(X, 1)||_2 ||(W_Q, b_Q)^T W_K||_2 ||Y||_2 / sqrt(d)          for the loose one, as the paper has it

since m, as the keys' bias, adds the same to all logits of a row. Where the weights are not known, or queries and keys
are not what they make of the inputs (rotated, normalised), it is |q_i| ||K - 1 m^T||_2 / sqrt(d). What is added to the
logits beside masks (a bias of positions) adds the norm of its own mean-free part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.precision import accurate
from landscape.representation.attention.bound import entropy_bound, product_norm, spectral_norm

_FAR = -9e3  # below the largest logit: exp is 0 in every precision, and masks of -1e4 have been in use
_ENTRIES = 1 << 24  # logits that are handled at a time


@dataclass(frozen=True)
class Projections:
    """What makes queries and keys of the inputs: `(heads, d, width)` weights, the queries' bias `(heads, d)` or None.

    Attributes:
        x, y: the inputs of queries `(N, L, width)` and of keys `(N, S, width)`.
        keys_bias: of the keys, to tell whether they are what the weights make.
    """

    x: Tensor
    y: Tensor
    query: Tensor
    key: Tensor
    bias: Tensor | None
    keys_bias: Tensor | None


@dataclass(frozen=True)
class Call:
    """Queries `(N, H, L, d)` and keys `(N, H, S, d)` with what becomes of their products.

    Attributes:
        scale: that multiplies them; None where `logits` are known instead.
        mask: what is then added, `(N, H, L, S)`, -inf for what is not seen; None for nothing.
        logits: as they go into softmax, `(N, H, L, S)`.
        own: positions attend to their own sequence, so that one whose key nobody sees is padding.
        projections: where they are known.
    """

    q: Tensor
    k: Tensor
    scale: float | None
    mask: Tensor | None = None
    logits: Tensor | None = None
    own: bool = False
    projections: Projections | None = None


@dataclass
class HeadSums:
    """Sums over rows `(5, heads)`: entropies, bounds, loose bounds, logs of the number of keys, and how many rows."""

    sums: Tensor
    least: Tensor
    of_weights: bool

    def add(self, other: HeadSums) -> HeadSums:
        """Of both; raises `ValueError` for another number of heads."""
        if self.sums.shape != other.sums.shape:
            raise ValueError(f"it has {other.sums.shape[1]} heads in one call and {self.sums.shape[1]} in another")
        least = torch.minimum(self.least, other.least)
        return HeadSums(self.sums + other.sums, least, self.of_weights and other.of_weights)


def head_sums(call: Call) -> HeadSums:
    """What a call adds."""
    N, H, L, _ = call.q.shape
    S = call.k.shape[-2]
    weights = _Weights.of(call)
    sums = torch.zeros(5, H, dtype=torch.float64)
    least = torch.full((H,), torch.inf, dtype=torch.float64)
    for n in torch.arange(N).split(max(1, _ENTRIES // max(1, H * L * S))):
        part = slice(int(n[0]), int(n[-1]) + 1)
        found, lowest = _rows(call, part, weights)
        sums += found.cpu()
        least = torch.minimum(least, lowest.cpu())
    return HeadSums(sums, least, weights is not None)


@dataclass(frozen=True)
class _Weights:
    """Inputs as they are multiplied by the weights, and the norm of what stands between them, `(heads,)`."""

    x: Tensor
    y: Tensor
    norm: Tensor

    @classmethod
    def of(cls, call: Call) -> _Weights | None:
        """None where queries and keys are not what the weights make of the inputs, but for a factor."""
        made = call.projections
        if made is None:
            return None
        tolerance = torch.finfo(call.q.dtype).eps ** 0.5
        factor = 1.0
        for x, W, bias, seen in ((made.x, made.query, made.bias, call.q), (made.y, made.key, made.keys_bias, call.k)):
            x, W, seen = (accurate(t) for t in (x, W, seen))
            expected = torch.einsum("nlc,hdc->nhld", x, W)
            expected = expected if bias is None else expected + accurate(bias).unsqueeze(1)
            size = float(expected.square().sum())
            own = float((expected * seen).sum()) / size if size else 1.0  # scaled before they are multiplied
            if float((own * expected - seen).abs().amax()) > tolerance * float(seen.abs().amax()):
                return None
            factor *= abs(own)
        A, B = accurate(made.query), accurate(made.key)
        x = accurate(made.x)
        if made.bias is not None:
            A = torch.cat([A, accurate(made.bias).unsqueeze(-1)], dim=-1)
            x = torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)
        return cls(x, accurate(made.y), factor * product_norm(A, B))


def _rows(call: Call, part: slice, weights: _Weights | None) -> tuple[Tensor, Tensor]:
    """Sums and lowest entropies over the rows of some samples."""
    Q, K = accurate(call.q[part]), accurate(call.k[part])
    products = Q @ K.mT
    if call.logits is not None:
        visible = _visible(call.logits[part]).to(products.device)
        Z = accurate(call.logits[part])
        scale = _fitted(Z, products, visible) if call.scale is None else call.scale
        added = Z - scale * products
    else:
        assert call.scale is not None
        scale = call.scale
        added = torch.zeros_like(products) if call.mask is None else accurate(call.mask[part])
        visible = (
            torch.ones_like(products, dtype=torch.bool)
            if call.mask is None
            else _visible(call.mask[part]).to(products.device)
        )
        Z = scale * products + added
    keys = visible.sum(-1)
    rows = keys > 0
    if call.own:
        rows &= visible.any(-2)
    p = torch.softmax(Z.masked_fill(~visible, -torch.inf), -1)
    entropy = torch.special.entr(p).sum(-1)
    added = added.masked_fill(~visible, 0.0)
    mean = added.sum(-1, keepdim=True) / keys.clamp_min(1).unsqueeze(-1)
    extra = torch.linalg.vector_norm((added - mean).masked_fill(~visible, 0.0), dim=-1)
    seen = (visible & rows.unsqueeze(-1)).any(-2)  # keys (N, H, S)
    if weights is None:
        X, Y, used, norm = Q, K, rows, torch.ones((), dtype=Q.dtype, device=Q.device)
    else:
        X, Y, used, seen = (t.unsqueeze(1) for t in (weights.x[part], weights.y[part], rows.any(1), seen.any(1)))
        norm = weights.norm
    X, Y = X * used.unsqueeze(-1), Y * seen.unsqueeze(-1)
    middle = Y.sum(-2, keepdim=True) / seen.sum(-1).clamp_min(1)[..., None, None]
    near = abs(scale) * norm * spectral_norm((Y - middle) * seen.unsqueeze(-1))
    far = abs(scale) * norm * spectral_norm(Y) * spectral_norm(X)
    bound = entropy_bound(torch.linalg.vector_norm(X, dim=-1) * near.unsqueeze(-1) + extra, keys)
    loose = entropy_bound(far.unsqueeze(-1) + extra, keys)
    columns = [entropy, bound, loose, keys.clamp_min(1).double().log(), torch.ones_like(entropy)]
    sums = torch.stack([t.masked_fill(~rows, 0.0).sum((0, 2)) for t in columns])
    return sums, entropy.masked_fill(~rows, torch.inf).amin((0, 2))


def _visible(t: Tensor) -> Tensor:
    """Of logits, or of what is added to them: which keys a row sees."""
    top = t.amax(-1, keepdim=True)
    return (t > torch.finfo(t.dtype).min / 2) & ((t - top > _FAR) | (t == top))


def _fitted(Z: Tensor, products: Tensor, visible: Tensor) -> float:
    """The factor between products and logits, by least squares on what is visible: any would do."""
    count = visible.sum(-1, keepdim=True).clamp_min(1)

    def centred(t: Tensor) -> Tensor:
        t = t.masked_fill(~visible, 0.0)
        return (t - t.sum(-1, keepdim=True) / count).masked_fill(~visible, 0.0)

    P = centred(products)
    size = float(P.square().sum())
    return float((P * centred(Z)).sum()) / size if size > 0 else 1.0
