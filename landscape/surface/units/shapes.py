"""Rules of operations that move axes, cut them and put them together, and of attention, which is cut into heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.objective.batch import tensors_in
from landscape.surface.units.axes import Axes, Axis, Units, blocks, pin, reshaped, tie
from landscape.surface.units.known import Known
from landscape.surface.units.rules import RULES, broadcast, made_by, refuse, rule

__all__ = ["RULES"]


@rule("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def _reshape(known: Known, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    known.set(out, reshaped(known.axes(x), tuple(x.shape), tuple(out.shape)))


@rule("expand", "expand_as", "broadcast_to")
def _expand(known: Known, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    known.set(out, broadcast(known, out.ndim, [x]))


@rule("transpose", "swapaxes", "swapdims", "permute", "movedim", "t", "T", "mT", "adjoint")
def _moved(known: Known, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    """Where each axis has gone to, by its stride: no two axes that carry units have the same one."""
    places: Axes = [None] * out.ndim
    left = list(range(x.ndim))
    for d in range(out.ndim):
        alike = [e for e in left if (x.shape[e], x.stride(e)) == (out.shape[d], out.stride(d))]
        if len(alike) > 1 and out.shape[d] > 1:
            refuse(known, "moves axes of a tensor that repeats its entries")
        if alike:
            left.remove(alike[0])
            places[d] = known.axes(x)[alike[0]]
    known.set(out, places)


@rule("getitem", "select", "narrow")
def _getitem(known: Known, out: Tensor, x: Tensor, index: Any, *rest: Any) -> None:
    if rest:  # select(dim, index), narrow(dim, start, length)
        axes, d = list(known.axes(x)), index % x.ndim
        if out.shape != x.shape:
            pin(axes[d])
            axes[d] = None
        known.set(out, axes if out.ndim == x.ndim else axes[:d] + axes[d + 1 :])
        return
    parts = list(index) if isinstance(index, tuple) else [index]
    several = sum(isinstance(part, Tensor | list) for part in parts) > 1
    if several or any(isinstance(p, Tensor) and p.dtype == torch.bool and p.ndim > 1 for p in parts):
        pin(*known.axes(x))
        known.set(out, [None] * out.ndim)
        return
    known.set(out, _indexed(x, known.axes(x), parts))


def _indexed(x: Tensor, axes: Axes, parts: list[Any]) -> Axes:
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    where = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts = parts[:where] + [slice(None)] * (x.ndim - taken) + parts[where + 1 :]
    found: Axes = []
    d = 0
    for part in parts:
        if part is None:
            found.append(None)
            continue
        whole = isinstance(part, slice) and range(*part.indices(x.shape[d])) == range(x.shape[d])
        if not whole:
            pin(axes[d])
        if isinstance(part, slice):
            found.append(axes[d] if whole else None)
        elif isinstance(part, Tensor | list):
            found += [None] * torch.as_tensor(part).ndim
        d += 1
    return found


@rule("cat", "concat", "concatenate", "stack")
def _joined(known: Known, out: Tensor, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> None:
    d = dim % out.ndim
    stacked = out.ndim > tensors[0].ndim
    every = [[*(a := known.axes(t))[:d], None, *a[d:]] if stacked else list(known.axes(t)) for t in tensors]
    if any(axes[d] is not None and not axes[d].pinned for axes in every):  # type: ignore[union-attr]
        refuse(known, "puts units of several layers side by side")
    found = every[0]
    for axes in every[1:]:
        found = [None if e == d else tie(a, b) for e, (a, b) in enumerate(zip(found, axes, strict=True))]
    found[d] = None
    known.set(out, found)


@rule("chunk", "split", "unbind", "tensor_split", "split_with_sizes")
def _split(known: Known, out: Sequence[Tensor], x: Tensor, *rest: Any, **options: Any) -> None:
    unbound = out[0].ndim < x.ndim
    dim = options.get("dim", (rest[0] if rest else 0) if unbound else rest[1] if len(rest) > 1 else 0)
    d, axes = dim % x.ndim, known.axes(x)
    for t in out:
        axis = axes[d]
        if unbound or t.shape[d] * len(out) != x.shape[d]:
            pin(axis)
            axis = None
        elif len(out) > 1:
            axis = blocks(axis, t.shape[d], outer=len(out))
            axis = None if axis is None else Axis(axis.units, axis.outer // len(out), axis.inner)
        known.set(t, [*axes[:d], *([] if unbound else [axis]), *axes[d + 1 :]])


@rule("scaled_dot_product_attention")
def _attention(known: Known, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> None:
    q, k, v = (known.axes(t) for t in (query, key, value))
    tie(q[-1], k[-1])
    tie(k[-2], v[-2])
    batch = [tie(tie(a, b), c) for a, b, c in zip(q[:-2], k[:-2], v[:-2], strict=True)]
    known.set(out, [*batch, q[-2], v[-1]])


@rule("multi_head_attention_forward")
def _multi_head(
    known: Known,
    out: tuple[Tensor, Tensor | None],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    **options: Any,
) -> None:
    """Heads go as blocks: features within one are left in their order, as queries and keys only share rotations."""
    if bias_k is not None or (training and dropout_p > 0.0):
        refuse(known, "has biases of keys, or drops at random (measure with mode='eval')")
    inputs = [known.axes(t)[-1] for t in (query, key, value)]
    heads = Axis(Units(num_heads), 1, out_proj_weight.shape[1] // num_heads)
    if in_proj_weight is not None:
        weights, three = [in_proj_weight] * 3, 3
    else:
        weights, three = [options[f"{kind}_proj_weight"] for kind in "qkv"], 1
    for weight, axis in zip(weights, inputs, strict=True):
        tie(axis, known.axes(weight)[1])
        known.reads(weight, 1)
        known.writes(weight, 0)
        tie(Axis(heads.units, three, heads.inner), known.axes(weight)[0])
    if in_proj_bias is not None:
        tie(Axis(heads.units, 3, heads.inner), known.axes(in_proj_bias)[0])
    tie(heads, known.axes(out_proj_weight)[1])
    known.reads(out_proj_weight, 1)
    made = made_by(known, out_proj_weight, 0, out_proj_bias)
    for t in tensors_in(out):
        known.set(t, [None] * t.ndim)
    known.set(out[0], [*known.axes(query)[:-1], made])
