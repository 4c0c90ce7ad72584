"""Which functions of torch are layers: a rule for each, by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from landscape.operators.kronecker.layers.convolution import ConvolutionUse
from landscape.operators.kronecker.layers.embedding import EmbeddingUse
from landscape.operators.kronecker.layers.layer import Affine, Stacked
from landscape.operators.kronecker.layers.linear import LinearUse
from landscape.operators.kronecker.layers.scale import Operand, ScaleUse
from landscape.operators.kronecker.layers.use import Use
from landscape.operators.kronecker.recorder import Recorder, rule


def _blocks(recorder: Recorder, weight: str | None, bias: str | None) -> list[tuple[str | None, str | None]]:
    """The names of each block's weight and bias."""
    if recorder.separate and weight is not None and bias is not None:
        return [(weight, None), (None, bias)]
    return [(weight, bias)] if weight is not None or bias is not None else []


@rule("linear")
def _linear(recorder: Recorder, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Use]:
    return _affine(recorder, out, input, recorder.plain(weight), recorder.plain(bias), weight.shape)


@rule("addmm")
def _addmm(
    recorder: Recorder, out: Tensor, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> list[Use] | None:
    if (beta, alpha) != (1, 1) or recorder.origin(mat1) is not None:
        return None
    return _product(recorder, out, mat1, mat2, recorder.plain(input))


@rule("matmul", "mm")
def _matmul(recorder: Recorder, out: Tensor, input: Tensor, other: Tensor) -> list[Use] | None:
    return None if recorder.origin(input) is not None else _product(recorder, out, input, other, None)


def _product(recorder: Recorder, out: Tensor, x: Tensor, other: Tensor, bias: str | None) -> list[Use] | None:
    """x @ W, where W is a parameter or its transpose."""
    origin = recorder.origin(other)
    if other.ndim != 2 or x.ndim < 2 or (origin is not None and origin.form == "function"):
        return None
    weight = None if origin is None else next(iter(origin.leaves))
    transposed = origin is not None and origin.form == "plain"
    return _affine(recorder, out, x, weight, bias, other.T.shape, transposed)


def _affine(
    recorder: Recorder,
    out: Tensor,
    x: Tensor,
    weight: str | None,
    bias: str | None,
    shape: torch.Size,
    transposed: bool = False,
) -> list[Use]:
    rows, features = shape
    return [
        LinearUse(Affine.of(w, b, rows, features, transposed=transposed), out, out.shape, recorder.samples, x)
        for w, b in _blocks(recorder, weight, bias)
    ]


@rule("conv1d", "conv2d", "conv3d")
def _convolution(
    recorder: Recorder,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> list[Use]:
    dims = weight.ndim - 2

    def each(size: int | Sequence[int]) -> Sequence[int]:
        return [size] * dims if isinstance(size, int) else [*size] * (dims if len(size) == 1 else 1)

    shape = out.shape if out.ndim == dims + 2 else torch.Size((1, *out.shape))
    batched = input if input.ndim == dims + 2 else input.unsqueeze(0)
    edges = padding if isinstance(padding, str) else each(padding)
    settings = tuple(weight.shape[2:]), each(stride), edges, each(dilation)
    size = len(weight) // groups, weight[0].numel(), groups
    return [
        ConvolutionUse(Affine.of(w, b, *size), out, shape, recorder.samples, batched, *settings)
        for w, b in _blocks(recorder, recorder.plain(weight), recorder.plain(bias))
    ]


@rule("embedding")
def _embedding(
    recorder: Recorder, out: Tensor, input: Tensor, weight: Tensor, padding_idx: int | None = None, *_: Any, **__: Any
) -> list[Use]:
    name = recorder.plain(weight)
    layer = Affine.of(name, None, weight.shape[1], weight.shape[0], transposed=True, diagonal_input=True)
    known = name is not None
    return [EmbeddingUse(layer, out, out.shape, recorder.samples, input, padding_idx)] if known else []


# -- scales and shifts -------------------------------------------------------------------------------------------------


def _scaled(recorder: Recorder, out: Tensor, given: Sequence[tuple[Any, torch.Size, Any]]) -> list[Use]:
    """A use whose operands are those of the given (value, shape, factor) that are made of chosen parameters."""
    return _entries(
        recorder,
        out,
        [
            Operand(origin.value, shape, origin.leaves, factor)
            for value, shape, factor in given
            if (origin := recorder.origin(value)) is not None
        ],
    )


def _entries(recorder: Recorder, out: Tensor, operands: list[Operand]) -> list[Use]:
    blocks = [[o] for o in operands] if recorder.separate else [operands]
    made: list[Use] = []
    for block in blocks:
        sizes = {name: p.numel() for o in block for name, p in o.leaves.items()}
        if sizes:
            made.append(ScaleUse(Stacked.of(tuple(sizes.items())), out, out.shape, recorder.samples, block))
    return made


def _normalised(norm: Callable[..., Tensor], channel_first: bool) -> Callable[..., list[Use] | None]:
    """The rule of a norm layer: scale * what it makes without one + shift."""
    signature = inspect.signature(norm)

    def apply(recorder: Recorder, out: Tensor, *args: Any, **options: Any) -> list[Use] | None:
        try:
            bound = signature.bind(*args, **options)
        except TypeError:  # torch's own function of that name
            return None
        scale, shift = bound.arguments.get("weight"), bound.arguments.get("bias")
        bound.arguments.update({name: None for name in ("weight", "bias") if name in signature.parameters})
        if "momentum" in signature.parameters and bound.arguments.get("running_mean") is not None:
            bound.arguments["momentum"] = 0.0  # running statistics are not to move once more
        with torch.no_grad():
            plain = norm(*bound.args, **bound.kwargs)
        ones = [1] * (out.ndim - 2)

        def shape(value: Tensor) -> torch.Size:
            return torch.Size((*value.shape, *ones)) if channel_first else value.shape

        given = [(scale, plain), (shift, None)]
        return _scaled(recorder, out, [(v, shape(v), f) for v, f in given if isinstance(v, Tensor)])

    return apply


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    return F.rms_norm(input, list(normalized_shape), weight, eps)


for _name, _norm, _first in (
    ("layer_norm", F.layer_norm, False),
    ("rms_norm", _rms_norm, False),
    ("batch_norm", F.batch_norm, True),
    ("instance_norm", F.instance_norm, True),
    ("group_norm", F.group_norm, True),
):
    rule(_name)(_normalised(_norm, _first))


@rule("mul")
def _mul(recorder: Recorder, out: Tensor, input: Any, other: Any, **options: Any) -> list[Use] | None:
    value, factor = (other, input) if recorder.origin(input) is None else (input, other)
    if options or not isinstance(factor, Tensor) or recorder.origin(factor) is not None:
        return None
    return _broadcast(recorder, out, value, factor.detach())


@rule("add")
def _add(recorder: Recorder, out: Tensor, input: Any, other: Any, *, alpha: float = 1) -> list[Use] | None:
    value = other if recorder.origin(input) is None else input
    return _broadcast(recorder, out, value, float(alpha) if value is other else None)


def _broadcast(recorder: Recorder, out: Tensor, value: Tensor, factor: Tensor | float | None) -> list[Use]:
    origin = recorder.origin(value)
    assert origin is not None
    return _entries(recorder, out, [Operand(origin.value, origin.value.shape, origin.leaves, factor)])


@rule("cat", "concat", "concatenate")
def _cat(recorder: Recorder, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> list[Use]:
    dim, start, operands = dim % out.ndim, 0, list[Operand]()
    for t in tensors:
        origin, size = recorder.origin(t), t.shape[dim]
        if origin is not None:
            operands.append(Operand(origin.value, origin.value.shape, origin.leaves, None, (dim, start, size)))
        start += size
    return _entries(recorder, out, operands)
