"""What each operation does to units: a rule a function of torch, by its name.

A rule is called as `rule(known, outputs, *args, **options)` with the arguments of the operation. It ties the axes that
meet and notes what those of the outputs carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torch import Tensor

from landscape.objective.batch import tensors_in
from landscape.surface.units.axes import Axes, Axis, pin, tie
from landscape.surface.units.known import Known

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Notes a rule under these names."""

    def note(one: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, one))
        return one

    return note


def refuse(known: Known, what: str) -> NoReturn:
    """Raises `TypeError` that names the module."""
    raise TypeError(f"{known.place()} {what}: there is no rule for its units")


# -- entry by entry ----------------------------------------------------------------------------------------------------


_ENTRY_BY_ENTRY = """
    relu relu6 gelu silu mish tanh sigmoid leaky_relu elu selu celu softplus softsign hardtanh hardswish hardsigmoid
    logsigmoid tanhshrink softshrink hardshrink threshold exp log sqrt rsqrt square abs neg reciprocal clamp clamp_min
    clamp_max sin cos erf sign add sub rsub mul div truediv true_divide pow maximum minimum where lerp addcmul
    masked_fill contiguous clone to float double half bfloat16 type type_as detach data alias requires_grad eq ne lt le
    gt ge isnan
"""


@rule(*_ENTRY_BY_ENTRY.split())
def _entries(known: Known, out: Any, *args: Any, **options: Any) -> None:
    if isinstance(out, Tensor):
        known.set(out, broadcast(known, out.ndim, list(tensors_in([args, options]))))


def broadcast(known: Known, ndim: int, given: Sequence[Tensor]) -> Axes:
    """The axes of operands, aligned at the last one, tied where they are of more than one entry."""
    found: Axes = [None] * ndim
    for d in range(1, ndim + 1):
        axes = [known.axes(t)[-d] for t in given if t.ndim >= d and t.shape[-d] != 1]
        if axes:
            found[-d] = axes[0]
            for axis in axes[1:]:
                found[-d] = tie(found[-d], axis)
    return found


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
def _dropout(known: Known, out: Tensor, x: Tensor, p: float = 0.5, training: bool = True, *_: Any, **__: Any) -> None:
    if training and p > 0.0:
        refuse(known, "drops units at random (measure with mode='eval')")
    known.set(out, known.axes(x))


@rule("softmax", "log_softmax", "normalize")
def _along(known: Known, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    known.set(out, known.axes(x))  # what is summed does not depend on the order


@rule("prelu")
def _prelu(known: Known, out: Tensor, x: Tensor, weight: Tensor) -> None:
    axes = known.axes(x)
    if weight.numel() > 1:
        axes[1] = tie(axes[1], known.axes(weight)[0])
    known.set(out, axes)


# -- layers ------------------------------------------------------------------------------------------------------------


def made_by(known: Known, weight: Tensor, axis: int, bias: Tensor | None) -> Axis | None:
    """What a layer's outputs carry."""
    known.writes(weight, axis)
    made = known.axes(weight)[axis]
    return made if bias is None else tie(made, known.axes(bias)[0])


@rule("linear")
def _linear(known: Known, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    tie(known.axes(input)[-1], known.axes(weight)[1])
    known.reads(weight, 1)
    known.set(out, [*known.axes(input)[:-1], made_by(known, weight, 0, bias)])


@rule("matmul", "mm", "bmm")
def _matmul(known: Known, out: Tensor, a: Tensor, b: Tensor) -> None:
    if a.ndim < 2 or b.ndim < 2:
        refuse(known, "multiplies by a vector")
    left, right = known.axes(a), known.axes(b)
    tie(left[-1], right[-2])
    for t, axis in ((a, a.ndim - 1), (b, b.ndim - 2)):
        known.reads(t, axis)
    for t, axis in ((a, a.ndim - 2), (b, b.ndim - 1)):
        known.writes(t, axis)
    batch: Axes = [None] * (out.ndim - 2)
    for d in range(3, out.ndim + 1):
        axes = [known.axes(t)[-d] for t in (a, b) if t.ndim >= d and t.shape[-d] != 1]
        batch[-(d - 2)] = axes[0] if len(axes) == 1 else tie(axes[0], axes[1]) if axes else None
    known.set(out, [*batch, left[-2], right[-1]])


@rule("conv1d", "conv2d", "conv3d")
def _convolution(
    known: Known, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
) -> None:
    groups = rest[3] if len(rest) > 3 else options.get("groups", 1)
    axes, own = known.axes(input), known.axes(weight)
    channel = input.ndim - (weight.ndim - 1)
    pin(*own[2:], *axes[channel + 1 :])
    if groups == 1:
        tie(axes[channel], own[1])
        known.reads(weight, 1)
    elif groups == input.shape[channel] == weight.shape[0]:  # each channel by itself
        tie(axes[channel], own[0])
    else:
        refuse(known, "is a convolution in groups of channels")
    made = made_by(known, weight, 0, bias)
    known.set(out, [*axes[:channel], made, *[None] * (out.ndim - channel - 1)])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(
    known: Known, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
) -> None:
    if (rest[3] if len(rest) > 3 else options.get("groups", 1)) != 1:
        refuse(known, "is a convolution in groups of channels")
    axes, own = known.axes(input), known.axes(weight)
    channel = input.ndim - (weight.ndim - 1)
    pin(*own[2:], *axes[channel + 1 :])
    tie(axes[channel], own[0])
    known.reads(weight, 0)
    made = made_by(known, weight, 1, bias)
    known.set(out, [*axes[:channel], made, *[None] * (out.ndim - channel - 1)])


@rule("embedding")
def _embedding(known: Known, out: Tensor, input: Tensor, weight: Tensor, *_: Any, **__: Any) -> None:
    rows, made = known.axes(weight)
    pin(rows)
    known.writes(weight, 1)
    known.set(out, [None] * input.ndim + [made])


def _scaled(known: Known, out: Tensor, axes: Axes, places: Sequence[int], *vectors: Tensor | None) -> None:
    for vector in vectors:
        if vector is not None:
            for place, axis in zip(places, known.axes(vector), strict=True):
                axes[place] = tie(axes[place], axis)
    known.set(out, axes)


@rule("batch_norm", "instance_norm")
def _batch_norm(
    known: Known,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> None:
    _scaled(known, out, list(known.axes(input)), [1], weight, bias)


@rule("layer_norm", "rms_norm")
def _layer_norm(
    known: Known,
    out: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | float | None = None,
    *_: Any,
    **__: Any,
) -> None:
    shift = bias if isinstance(bias, Tensor) else None  # the third argument of rms_norm is eps
    places = range(input.ndim - len(normalized_shape), input.ndim)
    _scaled(known, out, list(known.axes(input)), places, weight, shift)


@rule("group_norm")
def _group_norm(
    known: Known,
    out: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> None:
    if num_groups not in (1, input.shape[1]):
        refuse(known, "normalises groups of channels")
    _scaled(known, out, list(known.axes(input)), [1], weight, bias)


# -- loss functions and sums -------------------------------------------------------------------------------------------


@rule("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "binary_cross_entropy_with_logits", "argmax", "argmin")
def _judged(known: Known, out: Tensor, *args: Any, **options: Any) -> None:
    for t in tensors_in([args, options]):
        pin(*known.axes(t))
    known.set(out, [None] * out.ndim)


@rule("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "norm", "vector_norm")
def _reduced(known: Known, out: Tensor, x: Tensor, *rest: Any, **options: Any) -> None:
    if out.ndim == 0:
        known.set(out, [])
        return
    dim = options.get("dim", rest[0] if rest else None)
    if dim is None or isinstance(dim, bool | float):
        refuse(known, "sums over axes that are not told")
    over = {d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)}
    kept = out.ndim == x.ndim
    known.set(out, [None if d in over else a for d, a in enumerate(known.axes(x)) if kept or d not in over])


@rule(
    *(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for d in (1, 2, 3)),
    *(f"max_pool{d}d_with_indices" for d in (1, 2, 3)),
    "interpolate",
    "pad",
)
def _pooled(known: Known, out: Any, x: Tensor, *rest: Any, **options: Any) -> None:
    for t in tensors_in(out):
        same = [a if t.shape[d] == x.shape[d] and d < 2 else None for d, a in enumerate(known.axes(x))]
        pin(*(a for a, b in zip(known.axes(x), same, strict=True) if b is None))
        known.set(t, same)
