"""The entropy of softmax, and the least that it can be of logits of a given norm (arXiv 2303.06296).

Of T logits whose mean-free part has a norm of at most s,

    entropy >= log(1 + (T - 1) b) + s sqrt(T (T - 1)) b / (1 + (T - 1) b),    b = exp(-s sqrt(T / (T - 1))),

attained where one is large and all others are equal. It falls with s, so that any upper bound of the norm serves.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_bound(norm: Tensor | float, keys: Tensor | int) -> Tensor:
    """The least entropy, in nats, of softmax over `keys` logits whose mean-free part has at most that norm.

    Both may be tensors, of shapes that go together; float64 comes back. log(keys) for a norm of 0, 0 for one key.

    Example:
        >>> import math
        >>> import torch
        >>> from landscape.representation import entropy_bound
        >>> [round(float(x), 4) for x in entropy_bound(torch.tensor([0.0, 1.0, 100.0]), 2)]
        [0.6931, 0.4942, 0.0]
        >>> a = math.sqrt(0.5)  # one large and one small, with norm 1
        >>> p = torch.tensor([a, -a]).double().softmax(0)
        >>> round(float(-(p * p.log()).sum()), 4)
        0.4942
    """
    T = torch.as_tensor(keys, dtype=torch.float64)
    s = torch.as_tensor(norm).to(dtype=torch.float64, device=T.device if isinstance(keys, Tensor) else None)
    T = T.to(s.device)
    others = (T - 1).clamp_min(1.0)
    b = torch.exp(-s * (T / others).sqrt())
    Z = 1 + others * b
    bound = Z.log() + s * (T * others).sqrt() * b / Z
    return torch.where(T > 1, torch.nan_to_num(bound, nan=0.0), 0.0)  # inf * 0 of an infinite norm


def spectral_norm(X: Tensor) -> Tensor:
    """The largest singular value of matrices `(..., m, n)`, by the smaller Gram matrix."""
    if not X.shape[-1] or not X.shape[-2]:
        return X.new_zeros(X.shape[:-2])
    gram = X @ X.mT if X.shape[-2] <= X.shape[-1] else X.mT @ X
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0.0).sqrt()


def product_norm(A: Tensor, B: Tensor) -> Tensor:
    """||A^T B||_2 of `(..., d, m)` and `(..., d, n)` with small d, from the largest eigenvalue of A A^T B B^T."""
    values, vectors = torch.linalg.eigh(A @ A.mT)
    root = vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2) @ vectors.mT
    return torch.linalg.eigvalsh(root @ (B @ B.mT) @ root)[..., -1].clamp_min(0.0).sqrt()
