"""What each operation does to units: a rule a function of torch, by its name.

A rule is called as `rule(tracer, outputs, *args, **options)` with the arguments of the operation. It ties the axes that
meet and notes what those of the outputs carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from landscape.objective.batch import tensors_in
from landscape.surface.units.axes import Axes, Axis, pin, tie

if TYPE_CHECKING:
    from landscape.surface.units.trace import Tracer

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}


def name_of(function: Any) -> str:
    """`add` for `torch.add`, `Tensor.add_`, `Tensor.__iadd__`; the attribute for `Tensor.T.__get__`."""
    name = str(getattr(function, "__name__", function))
    if name == "__get__":
        return str(getattr(function.__self__, "__name__", "an attribute"))
    bare = name.strip("_")
    return _OPERATORS.get(bare, bare) if name.startswith("__") else bare


_OPERATORS = {
    f"{side}{name}": name for name in ("add", "sub", "mul", "div", "truediv", "pow", "matmul") for side in ("i", "r")
}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Notes a rule under these names."""

    def note(one: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, one))
        return one

    return note


def refuse(tracer: Tracer, what: str) -> NoReturn:
    """Raises `TypeError` that names the module."""
    raise TypeError(f"{tracer.place()} {what}: there is no rule for its units")


# -- entry by entry ----------------------------------------------------------------------------------------------------


_ENTRY_BY_ENTRY = """
    relu relu6 gelu silu mish tanh sigmoid leaky_relu elu selu celu softplus softsign hardtanh hardswish hardsigmoid
    logsigmoid tanhshrink softshrink hardshrink threshold exp log sqrt rsqrt square abs neg reciprocal clamp clamp_min
    clamp_max sin cos erf sign add sub rsub mul div truediv true_divide pow maximum minimum where lerp addcmul
    masked_fill contiguous clone to float double half bfloat16 type type_as detach data alias requires_grad eq ne lt le
    gt ge isnan
"""


@rule(*_ENTRY_BY_ENTRY.split())
def _entries(tracer: Tracer, out: Any, *args: Any, **options: Any) -> None:
    if isinstance(out, Tensor):
        tracer.set(out, broadcast(tracer, out.ndim, list(tensors_in([args, options]))))


def broadcast(tracer: Tracer, ndim: int, given: Sequence[Tensor]) -> Axes:
    """The axes of operands, aligned at the last one, tied where they are of more than one entry."""
    found: Axes = [None] * ndim
    for d in range(1, ndim + 1):
        axes = [tracer.axes(t)[-d] for t in given if t.ndim >= d and t.shape[-d] != 1]
        if axes:
            found[-d] = axes[0]
            for axis in axes[1:]:
                found[-d] = tie(found[-d], axis)
    return found


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
def _dropout(tracer: Tracer, out: Tensor, x: Tensor, p: float = 0.5, training: bool = True, *_: Any, **__: Any) -> None:
    if training and p > 0.0:
        refuse(tracer, "drops units at random (measure with mode='eval')")
    tracer.set(out, tracer.axes(x))


@rule("softmax", "log_softmax", "normalize")
def _along(tracer: Tracer, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    tracer.set(out, tracer.axes(x))  # what is summed does not depend on the order


@rule("prelu")
def _prelu(tracer: Tracer, out: Tensor, x: Tensor, weight: Tensor) -> None:
    axes = tracer.axes(x)
    if weight.numel() > 1:
        axes[1] = tie(axes[1], tracer.axes(weight)[0])
    tracer.set(out, axes)


# -- layers ------------------------------------------------------------------------------------------------------------


def made_by(tracer: Tracer, weight: Tensor, axis: int, bias: Tensor | None) -> Axis | None:
    """What a layer's outputs carry."""
    tracer.writes(weight, axis)
    made = tracer.axes(weight)[axis]
    return made if bias is None else tie(made, tracer.axes(bias)[0])


@rule("linear")
def _linear(tracer: Tracer, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    tie(tracer.axes(input)[-1], tracer.axes(weight)[1])
    tracer.reads(weight, 1)
    tracer.set(out, [*tracer.axes(input)[:-1], made_by(tracer, weight, 0, bias)])


@rule("matmul", "mm", "bmm")
def _matmul(tracer: Tracer, out: Tensor, a: Tensor, b: Tensor) -> None:
    if a.ndim < 2 or b.ndim < 2:
        refuse(tracer, "multiplies by a vector")
    left, right = tracer.axes(a), tracer.axes(b)
    tie(left[-1], right[-2])
    for t, axis in ((a, a.ndim - 1), (b, b.ndim - 2)):
        tracer.reads(t, axis)
    for t, axis in ((a, a.ndim - 2), (b, b.ndim - 1)):
        tracer.writes(t, axis)
    batch: Axes = [None] * (out.ndim - 2)
    for d in range(3, out.ndim + 1):
        axes = [tracer.axes(t)[-d] for t in (a, b) if t.ndim >= d and t.shape[-d] != 1]
        batch[-(d - 2)] = axes[0] if len(axes) == 1 else tie(axes[0], axes[1]) if axes else None
    tracer.set(out, [*batch, left[-2], right[-1]])


@rule("conv1d", "conv2d", "conv3d")
def _convolution(
    tracer: Tracer, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
) -> None:
    groups = rest[3] if len(rest) > 3 else options.get("groups", 1)
    axes, own = tracer.axes(input), tracer.axes(weight)
    channel = input.ndim - (weight.ndim - 1)
    pin(*own[2:], *axes[channel + 1 :])
    if groups == 1:
        tie(axes[channel], own[1])
        tracer.reads(weight, 1)
    elif groups == input.shape[channel] == weight.shape[0]:  # each channel by itself
        tie(axes[channel], own[0])
    else:
        refuse(tracer, "is a convolution in groups of channels")
    made = made_by(tracer, weight, 0, bias)
    tracer.set(out, [*axes[:channel], made, *[None] * (out.ndim - channel - 1)])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(
    tracer: Tracer, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
) -> None:
    if (rest[3] if len(rest) > 3 else options.get("groups", 1)) != 1:
        refuse(tracer, "is a convolution in groups of channels")
    axes, own = tracer.axes(input), tracer.axes(weight)
    channel = input.ndim - (weight.ndim - 1)
    pin(*own[2:], *axes[channel + 1 :])
    tie(axes[channel], own[0])
    tracer.reads(weight, 0)
    made = made_by(tracer, weight, 1, bias)
    tracer.set(out, [*axes[:channel], made, *[None] * (out.ndim - channel - 1)])


@rule("embedding")
def _embedding(tracer: Tracer, out: Tensor, input: Tensor, weight: Tensor, *_: Any, **__: Any) -> None:
    rows, made = tracer.axes(weight)
    pin(rows)
    tracer.writes(weight, 1)
    tracer.set(out, [None] * input.ndim + [made])


def _scaled(tracer: Tracer, out: Tensor, axes: Axes, places: Sequence[int], *vectors: Tensor | None) -> None:
    for vector in vectors:
        if vector is not None:
            for place, axis in zip(places, tracer.axes(vector), strict=True):
                axes[place] = tie(axes[place], axis)
    tracer.set(out, axes)


@rule("batch_norm", "instance_norm")
def _batch_norm(
    tracer: Tracer,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> None:
    _scaled(tracer, out, list(tracer.axes(input)), [1], weight, bias)


@rule("layer_norm", "rms_norm")
def _layer_norm(
    tracer: Tracer,
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
    _scaled(tracer, out, list(tracer.axes(input)), places, weight, shift)


@rule("group_norm")
def _group_norm(
    tracer: Tracer,
    out: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> None:
    if num_groups not in (1, input.shape[1]):
        refuse(tracer, "normalises groups of channels")
    _scaled(tracer, out, list(tracer.axes(input)), [1], weight, bias)


# -- loss functions and sums -------------------------------------------------------------------------------------------


@rule("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "binary_cross_entropy_with_logits", "argmax", "argmin")
def _judged(tracer: Tracer, out: Tensor, *args: Any, **options: Any) -> None:
    for t in tensors_in([args, options]):
        pin(*tracer.axes(t))
    tracer.set(out, [None] * out.ndim)


@rule("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "norm", "vector_norm")
def _reduced(tracer: Tracer, out: Tensor, x: Tensor, *rest: Any, **options: Any) -> None:
    if out.ndim == 0:
        tracer.set(out, [])
        return
    dim = options.get("dim", rest[0] if rest else None)
    if dim is None or isinstance(dim, bool | float):
        refuse(tracer, "sums over axes that are not told")
    over = {d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)}
    kept = out.ndim == x.ndim
    tracer.set(out, [None if d in over else a for d, a in enumerate(tracer.axes(x)) if kept or d not in over])


@rule(
    *(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for d in (1, 2, 3)),
    *(f"max_pool{d}d_with_indices" for d in (1, 2, 3)),
    "interpolate",
    "pad",
)
def _pooled(tracer: Tracer, out: Any, x: Tensor, *rest: Any, **options: Any) -> None:
    for t in tensors_in(out):
        same = [a if t.shape[d] == x.shape[d] and d < 2 else None for d, a in enumerate(tracer.axes(x))]
        pin(*(a for a, b in zip(tracer.axes(x), same, strict=True) if b is None))
        tracer.set(t, same)
