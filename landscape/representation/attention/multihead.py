"""Queries, keys and masks of `F.multi_head_attention_forward`, as torch's nn.MultiheadAttention calls it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from landscape.representation.attention.call import Call, Projections

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def multihead_call(args: tuple[Any, ...], options: Mapping[str, Any]) -> Call:
    """The call with these arguments: inputs `(length, samples, width)`, or without samples."""
    bound = _SIGNATURE.bind(*args, **options)
    bound.apply_defaults()
    given = bound.arguments
    query, key = given["query"], given["key"]
    own = query is key
    if query.ndim == 2:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
    heads, (L, N, E) = given["num_heads"], query.shape
    Wq, Wk = _weights(given, E)
    bias = given["in_proj_bias"]
    bq, bk = (None, None) if bias is None else (bias[:E], bias[E : 2 * E])
    q, k = F.linear(query, Wq, bq), F.linear(key, Wk, bk)
    extra = 0
    if given["bias_k"] is not None:
        k, extra = torch.cat([k, given["bias_k"].expand(1, N, E)]), extra + 1
    d = E // heads
    q = q.reshape(L, N, heads, d).permute(1, 2, 0, 3)
    if given["static_k"] is not None:
        k = given["static_k"].reshape(N, heads, -1, d)
    else:
        k = k.reshape(-1, N, heads, d).permute(1, 2, 0, 3)
    if given["add_zero_attn"]:
        k, extra = torch.cat([k, k.new_zeros(N, heads, 1, d)], dim=2), extra + 1
    mask = _mask(given, (N, heads, L, k.shape[2] - extra), q.dtype)
    if mask is not None and extra:
        mask = F.pad(mask, (0, extra))
    made = None
    if not extra and given["static_k"] is None:
        x, y = query.transpose(0, 1), key.transpose(0, 1)
        split = (None if b is None else b.reshape(heads, d) for b in (bq, bk))
        made = Projections(x, y, Wq.reshape(heads, d, -1), Wk.reshape(heads, d, -1), *split)
    return Call(q, k, d**-0.5, mask, own=own and not extra, projections=made)


def _weights(given: Mapping[str, Any], width: int) -> tuple[Tensor, Tensor]:
    if given["use_separate_proj_weight"]:
        return given["q_proj_weight"], given["k_proj_weight"]
    whole = given["in_proj_weight"]
    return whole[:width], whole[width : 2 * width]


def _mask(given: Mapping[str, Any], shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor | None:
    """What is added to the logits, of the mask of pairs and that of padded keys; True is what is not seen."""
    N, H, L, S = shape
    total: Tensor | None = None
    for mask, view in ((given["attn_mask"], (N, H, L, S)), (given["key_padding_mask"], (N, 1, 1, S))):
        if mask is None:
            continue
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
        mask = mask.reshape(view) if mask.numel() == view[0] * view[1] * view[2] * view[3] else mask
        total = mask if total is None else total + mask
    return None if total is None else total.expand(shape)
