"""One batch: inputs and targets, the tensors in their nest, and how to move or split it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

_DEPTH = 6  # how far into the attributes of an object tensors are looked for
# A check looks at a few samples; of a large model at a share of a batch, since one batch may be all the data.
_SAMPLES, _LARGE, _SHARE = 32, 100_000, 1 / 8
_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


@dataclass(frozen=True)
class Batch:
    """One batch: its place in the pass, the model's inputs and the loss's targets.

    A `padding` one has no weight: it is run so that all ranks run as many batches.
    """

    index: int
    inputs: Any
    targets: Any
    padding: bool = False


def open_nest(value: Any) -> tuple[Iterable[Any], Callable[[list[Any]], Any]] | None:
    """The items of a nest and what makes the same nest of other items; None for what is not a nest.

    A nest is a batch, a mapping (which becomes a dict), a named tuple, a tuple, a list or a dataclass. A
    `PackedSequence` is none: its parts do not stand for themselves.
    """
    if isinstance(value, Batch):
        return (value.inputs, value.targets), lambda items: Batch(value.index, items[0], items[1], value.padding)
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, Mapping):
        return value.values(), lambda items: dict(zip(value, items, strict=True))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value, lambda items: type(value)(*items)
    if isinstance(value, tuple | list):
        return value, type(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [getattr(value, name) for name in names], lambda items: _with_fields(value, names, items)
    return None


def _with_fields(value: Any, names: list[str], items: list[Any]) -> Any:
    other = copy.copy(value)
    for name, item in zip(names, items, strict=True):
        object.__setattr__(other, name, item)
    return other


def leaves_of(value: Any) -> Iterator[Any]:
    """What a nest holds that is no nest itself."""
    nest = open_nest(value)
    if nest is None:
        yield value
        return
    for item in nest[0]:
        yield from leaves_of(item)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a nest that hold its numbers: of sparse, nested and packed ones those that they consist of.

    Those inside an object of a class of its own (a graph) as well, in its attributes.
    """
    for leaf in leaves_of(value):
        if isinstance(leaf, Tensor):
            yield from _strided(leaf)
        elif isinstance(leaf, PackedSequence):
            yield from (t for t in leaf if t is not None)
        elif has_moves(leaf):
            yield from _inside(leaf, _DEPTH)


def has_moves(value: Any) -> bool:
    """Whether this is an object of a class of its own that goes to a device by `.to`, such as a graph."""
    return (
        callable(getattr(value, "to", None))
        and hasattr(value, "__dict__")
        and not isinstance(value, Tensor | nn.Module | type | Mapping | PackedSequence)
    )


def _inside(thing: Any, depth: int) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield from _strided(thing)
    elif depth and (nest := open_nest(thing)) is not None:
        for item in nest[0]:
            yield from _inside(item, depth - 1)
    elif depth and hasattr(thing, "__dict__") and not isinstance(thing, nn.Module | type) and not callable(thing):
        for item in vars(thing).values():
            yield from _inside(item, depth - 1)


def _strided(t: Tensor) -> Iterator[Tensor]:
    if t.is_nested:
        yield t.values()
        if t.layout == torch.jagged:
            yield t.offsets()  # type: ignore[attr-defined]
    elif t.layout == torch.sparse_coo:
        yield from (t._indices(), t._values())
    elif t.layout in _COMPRESSED:
        yield from (getattr(t, part)() for part in _COMPRESSED[t.layout])
    else:
        yield t


def convert(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same nest with everything in it that is no nest itself, tensors and others, replaced by `leaf` of it."""
    nest = open_nest(value)
    return leaf(value) if nest is None else nest[1]([convert(item, leaf) for item in nest[0]])


def move(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """The same nest of tensors on a device; floating tensors cast to `dtype` when one is given."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            wanted = dtype if dtype is not None and leaf.is_floating_point() else leaf.dtype
            t = leaf.detach().to(device=device, dtype=wanted)
            return t.clone() if t.is_inference() else t  # autograd cannot save inference tensors
        if isinstance(leaf, PackedSequence):  # its batch sizes stay on the host
            orders = (None if order is None else moved(order) for order in leaf[2:])
            return PackedSequence(moved(leaf.data), leaf.batch_sizes, *orders)
        if has_moves(leaf):
            return _object_moved(leaf, device, moved)
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return convert(value, moved)


def _object_moved(thing: Any, device: torch.device, moved: Callable[[Any], Any]) -> Any:
    """A shallow copy on the device: some classes move themselves in place, and the user's own is not to be touched."""
    other = copy.copy(thing).to(device)
    if callable(getattr(other, "apply", None)):  # torch_geometric's way to every tensor
        return other.apply(moved)
    if other is not thing:
        for name, item in list(vars(other).items()):
            if any(isinstance(leaf, Tensor) for leaf in leaves_of(item)):
                object.__setattr__(other, name, convert(item, lambda x: moved(x) if isinstance(x, Tensor) else x))
    return other


def samples(batch: Batch) -> int:
    """How many samples the batch holds: the first dimension of its first tensor that has one.

    Sequences of a packed one; items of a list that has a target each; targets of an object of a class of its own.
    Raises `ValueError` when the inputs hold nothing with a first dimension.
    """
    inputs, targets = batch.inputs, batch.targets
    if _listed(batch):
        return len(inputs)
    if has_moves(inputs) and open_nest(inputs) is None and isinstance(targets, Tensor) and targets.ndim:
        return int(targets.shape[0])
    for leaf in leaves_of(inputs):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return int(leaf.shape[0])
        if isinstance(leaf, PackedSequence):
            return int(leaf.batch_sizes[0])
    if isinstance(inputs, list) and inputs and all(isinstance(text, str) for text in inputs):
        return len(inputs)
    raise ValueError("the batch cannot be split: its inputs hold no tensor with a first dimension")


def split(batch: Batch, size: int, order: Tensor | None = None) -> list[Batch]:
    """The batch in consecutive parts of `size` samples (the last may be smaller), taken in `order`.

    `order` `(samples,)` is a permutation on the host. Raises `ValueError` for a tensor whose first dimension is
    not the number of samples: it cannot be told which of its entries belong to which sample.
    """
    order = torch.arange(samples(batch)) if order is None else order
    return [rows_of(batch, rows) for rows in order.split(size)]


def enough(batch: Batch, parameters: int) -> int:
    """How many samples a check of a model takes, at most. Raises `ValueError` where the batch cannot be split."""
    share = max(2, int(_SHARE * samples(batch)))
    return _SAMPLES if parameters <= _LARGE else min(_SAMPLES, share)


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Samples start .. stop of a batch. Raises `ValueError` as `split` does."""
    return rows_of(batch, torch.arange(start, stop))


def every(batch: Batch, first: int, step: int) -> Batch:
    """Samples first, first + step, ... of a batch. Raises `ValueError` as `split` does."""
    return rows_of(batch, torch.arange(samples(batch))[first::step])


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """The samples of these numbers, `rows` on the host, in their order. Raises `ValueError` as `split` does."""
    m = samples(batch)

    def take(value: Any) -> Any:
        if _one_a_sample(value, m):
            return type(value)(value[i] for i in rows.tolist())
        nest = open_nest(value)
        if nest is not None:
            return nest[1]([take(item) for item in nest[0]])
        if isinstance(value, PackedSequence):
            return _sequences(value, rows)
        return _leaf(value, taken)

    def taken(t: Tensor) -> Tensor:
        if t.ndim == 0:
            return t
        if t.layout != torch.strided:
            kind = "a nested tensor" if t.is_nested else "a sparse tensor"
            raise ValueError(f"the batch cannot be split: it holds {kind}; use batches of the size that is wanted")
        if t.shape[0] != m:
            raise ValueError(
                f"the batch cannot be split: it has {m} samples and a tensor of shape {tuple(t.shape)}; use batches of "
                "the size that is wanted"
            )
        return t.index_select(0, rows.to(t.device))

    if _listed(batch):
        return Batch(batch.index, [batch.inputs[i] for i in rows], [batch.targets[i] for i in rows])
    return Batch(batch.index, take(batch.inputs), take(batch.targets))


def _listed(batch: Batch) -> bool:
    """Whether inputs and targets are lists with one item a sample (images with their boxes)."""
    inputs, targets = batch.inputs, batch.targets
    return isinstance(inputs, list) and isinstance(targets, list) and len(inputs) == len(targets)


def _one_a_sample(value: Any, m: int) -> bool:
    """Whether a list has one item a sample (images of different sizes, their boxes, texts), not one tensor of rows."""
    if type(value) not in (list, tuple) or len(value) != m:
        return False
    if all(isinstance(item, str) for item in value):
        return True
    rows = any(isinstance(item, Tensor) and item.ndim and len(item) == m for item in value)
    return isinstance(value, list) and not rows


def _sequences(packed: PackedSequence, rows: Tensor) -> PackedSequence:
    """Some of the sequences, in the order of `rows`."""
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    some = padded.index_select(0, rows.to(padded.device))
    return pack_padded_sequence(some, lengths[rows], batch_first=True, enforce_sorted=False)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with each tensor in it replaced; `ValueError` for what may hold tensors out of sight."""
    return convert(value, lambda leaf: _leaf(leaf, function))


def _leaf(leaf: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(leaf, Tensor):
        return function(leaf)
    if leaf is None or isinstance(leaf, bool | int | float | str):
        return leaf
    raise ValueError(f"the batch cannot be split: it holds a {type(leaf).__name__}")
