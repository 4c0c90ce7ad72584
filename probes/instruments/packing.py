"""The state of a model as flat arrays, and back: what a `state_dict` holds, tensors of one kind and dtype end to end.

A field is `parameters_float32` or `buffers_int64`, by torch's name of the dtype, and its `parts` are the tensors' names
and shapes. Complex numbers are pairs; what numpy does not know (bfloat16, float8) is kept as its bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import first_few
from probes.hashes import bytes_of
from probes.numbers import storage
from probes.trace.layout import Array, Field

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PARAMETERS = "parameters_"
_LIMIT = 1 << 30  # bytes of a row
_BLOCK = 1 << 16  # numbers that are converted to float64 at once: they stay in the cache
_INSTEAD = "save checkpoints, torch.save(model.state_dict(), path), and give them to landscape probe"

Parts = Sequence[tuple[tuple[str, ...], "Tensor"]]  # names and tensor of each


def fields_of(model: nn.Module) -> dict[str, Field]:
    """What `packed` returns of it. Raises `ValueError` for a state of 1 GiB, and for what is no plain tensor."""
    groups = _grouped(model)
    size = sum(tensor.numel() * tensor.itemsize for parts in groups.values() for _, tensor in parts)
    if size >= _LIMIT:
        name = type(model).__name__
        raise ValueError(f"the state of {name} takes {storage(size)}, a row of a trace less than 1 GiB: {_INSTEAD}")
    return {name: _field(name, parts) for name, parts in groups.items()}


def packed(model: nn.Module) -> dict[str, Array]:
    """Field -> `(numbers,)`, a copy on the host; of shards all ranks get the whole."""
    found = {}
    for name, parts in _grouped(model).items():
        flat = np.zeros(_length(parts), _stored(parts[0][1].dtype))
        at, target = 0, flat.view(np.uint8)
        for _, tensor in parts:
            content = bytes_of(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor)
            target[at : at + len(content)] = content
            at += len(content)
        found[name] = flat
    return found


def unpacked(row: Mapping[str, Array], fields: Mapping[str, Field]) -> dict[str, Tensor]:
    """The state dict of a row, bit for bit. Raises `ValueError` for a dtype that this torch does not know."""
    state: dict[str, Tensor] = {}
    for field, values in row.items():
        parts = fields[field].parts
        sizes = [math.prod(shape) for _, shape in parts]
        pieces = _as_torch(field, values)[: sum(sizes)].split(sizes)
        for (names, shape), piece in zip(parts, pieces, strict=True):
            state |= dict.fromkeys(names, piece.reshape(shape))
    return state


def squared_distance(row: Mapping[str, Array], other: Mapping[str, Array] | None = None) -> float:
    """Of the parameters of two rows, summed in float64; of one row the square of their norm."""
    total = 0.0
    for field, values in row.items():
        for start in range(0, len(values) if field.startswith(PARAMETERS) else 0, _BLOCK):
            block = slice(start, start + _BLOCK)
            step = _numbers(field, values[block])
            if other is not None:
                step -= _numbers(field, other[field][block])
            total += float(step @ step)
    return total


def memory_of(value: Any) -> tuple[Any, ...] | None:
    """What two entries of a state dict share when they are one parameter."""
    from torch import Tensor

    value = value.to_local() if hasattr(value, "to_local") else value
    if not isinstance(value, Tensor) or value.numel() == 0 or value.is_meta:
        return None
    return (value.device, value.data_ptr(), tuple(value.shape), tuple(value.stride()))


def _grouped(model: nn.Module) -> dict[str, Parts]:
    """Field -> names and tensor of each of its parts; of tied ones all names together."""
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    groups: dict[str, dict[Any, tuple[list[str], Tensor]]] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
            kind = "tensor of its own layout" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"{name} of {type(model).__name__} is a {kind}, a trace keeps plain tensors: {_INSTEAD}")
        kind = PARAMETERS if name in parameters else "buffers_"
        parts = groups.setdefault(f"{kind}{str(value.dtype).removeprefix('torch.')}", {})
        # a shard may be empty, and have no memory, on some ranks alone
        same = parameters.get(name, name) if hasattr(value, "full_tensor") else memory_of(value) or name
        parts.setdefault(same, ([], value))[0].append(name)
    return {field: [(tuple(names), tensor) for names, tensor in parts.values()] for field, parts in groups.items()}


def _field(name: str, parts: Parts) -> Field:
    kind, _, dtype = name.partition("_")
    stored = _stored(parts[0][1].dtype)
    kept = f"{dtype}, its bits as {stored}" if stored.kind == "u" and stored.name != dtype else dtype
    kept = f"{dtype}, real and imaginary parts in turn" if parts[0][1].is_complex() else kept
    return Field(
        (_length(parts),),
        stored.name,
        "parameter" if kind == "parameters" else "",
        f"all {kind} of {kept}, end to end as in parts: {first_few(names[0] for names, _ in parts)}",
        dims=(f"in_{name}",),
        parts=tuple((names, tuple(tensor.shape)) for names, tensor in parts),
    )


def _stored(dtype: torch.dtype) -> np.dtype[Any]:
    """What numpy keeps it as."""
    if dtype.is_complex:
        return np.dtype(f"float{4 * dtype.itemsize}")
    name = str(dtype).removeprefix("torch.")
    return np.dtype(name if name in np.sctypeDict else f"uint{8 * dtype.itemsize}")


def _length(parts: Parts) -> int:
    """Entries of the field; there is no dataset without any, and a buffer may be empty."""
    return max(1, sum(tensor.numel() * (2 if tensor.is_complex() else 1) for _, tensor in parts))


def _as_torch(field: str, values: Array) -> Tensor:
    import torch

    dtype = getattr(torch, name := field.partition("_")[2], None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch {torch.__version__} knows no dtype {name}: read it with a newer one")
    return torch.from_numpy(values.view(np.uint8)).view(dtype)


def _numbers(field: str, values: Array) -> Array:
    """As float64."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    return np.asarray(_as_torch(field, values).double())
