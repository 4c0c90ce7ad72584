"""A few samples of a batch's outputs and targets: cut, shortened to a common length, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.objective.batch import Batch, open_nest, part
from landscape.objective.outputs.nests import mapped, real_tensors, with_tensors

_ROWS = 8  # samples of a batch that are looked at
_ELEMENTS = 1 << 22  # of the outputs that are looked at, at most


@dataclass(frozen=True)
class Some:
    """A few samples of a batch: the outputs' tensors that the loss uses, the outputs they came in, and targets.

    The other tensors of the outputs (masks, lengths) are cut to the same samples.
    """

    tensors: tuple[Tensor, ...]
    used: tuple[int, ...]
    template: Any
    targets: Any

    @property
    def outputs(self) -> Any:
        """The outputs of these samples."""
        return self.filled(self.tensors)

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """The outputs with other tensors in the places of those used."""
        every = real_tensors(self.template)
        for i, t in zip(self.used, tensors, strict=True):
            every[i] = t
        return with_tensors(self.template, iter(every))


def some_of(outputs: Any, targets: Any, used: tuple[int, ...]) -> Some | None:
    """The first samples of a batch's outputs and targets; None where they cannot be cut."""
    every = [t.detach() for t in real_tensors(outputs)]
    used = used or tuple(range(len(every)))
    tensors = tuple(every[i] for i in used)
    if not tensors or not all(t.ndim for t in tensors):
        return None
    each = sum(t[:1].numel() for t in tensors)
    template = mapped(outputs, Tensor.detach)
    return rows_of(Some(tensors, used, template, targets), 0, max(2, min(_ROWS, _ELEMENTS // max(1, each))))


def rows_of(some: Some, start: int, stop: int) -> Some | None:
    """Samples start .. stop of them; None where they cannot be cut."""
    rows = len(some.tensors[0])
    stop = min(stop, rows)
    try:
        cut = part(Batch(0, some.tensors, some.targets), start, stop)
    except (ValueError, IndexError):
        return None

    def short(t: Tensor) -> Tensor:  # a copy, so that what is long is not kept alive
        if t.ndim == 0 or len(t) != rows:
            return t if t.numel() <= _ELEMENTS else t[:0].clone()
        return t[start:stop].clone() if t[start:stop].numel() <= _ELEMENTS else t[:0].clone()

    return Some(tuple(t.clone() for t in cut.inputs), some.used, mapped(some.template, short), cut.targets)


def common(first: Some, second: Some) -> tuple[Some, Some]:
    """Both cut to the trailing sizes that they have in common."""
    pairs = [_narrowed(a, b) for a, b in zip(first.tensors, second.tensors, strict=True)]
    a_targets, b_targets = _narrowed_nest(first.targets, second.targets)
    a_template, b_template = _narrowed_outputs(first, second)
    a = Some(tuple(p[0] for p in pairs), first.used, a_template, a_targets)
    return a, Some(tuple(p[1] for p in pairs), second.used, b_template, b_targets)


def _narrowed_outputs(first: Some, second: Some) -> tuple[Any, Any]:
    """The outputs of both, cut where they have a row for each sample."""
    pairs = []
    for a, b in zip(_tensors(first.template), _tensors(second.template), strict=True):
        each = a.ndim == b.ndim > 0 and (len(a), len(b)) == (len(first.tensors[0]), len(second.tensors[0]))
        pairs.append(_narrowed(a, b) if each else (a, b))
    own, other = iter([p[0] for p in pairs]), iter([p[1] for p in pairs])
    return mapped(first.template, lambda t: next(own)), mapped(second.template, lambda t: next(other))


def _tensors(outputs: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(t: Tensor) -> Tensor:
        found.append(t)
        return t

    mapped(outputs, note)
    return found


def _narrowed(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for d in range(1, a.ndim):
        size = min(a.shape[d], b.shape[d])
        a, b = a.narrow(d, 0, size), b.narrow(d, 0, size)
    return a, b


def _narrowed_nest(a: Any, b: Any) -> tuple[Any, Any]:
    if isinstance(a, Tensor):
        return _narrowed(a, b)
    nest, other = open_nest(a), open_nest(b)
    if nest is None or other is None or isinstance(a, list):
        return a, b
    pairs = [_narrowed_nest(x, y) for x, y in zip(nest[0], other[0], strict=True)]
    return nest[1]([p[0] for p in pairs]), other[1]([p[1] for p in pairs])


def joined(a: Some, b: Some) -> Some:
    """The samples of both, one after the other."""
    tensors = tuple(torch.cat([x, y]) for x, y in zip(a.tensors, b.tensors, strict=True))
    rows, others = (len(a.tensors[0]), len(b.tensors[0])), iter(_tensors(b.template))

    def both(t: Tensor) -> Tensor:
        other = next(others)
        return torch.cat([t, other]) if t.ndim and other.ndim and (len(t), len(other)) == rows else t

    return Some(tensors, a.used, mapped(a.template, both), _joined_nest(a.targets, b.targets))


def _joined_nest(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor):
        return torch.cat([a, b]) if a.ndim else a
    if isinstance(a, list):  # an item a sample
        return a + b
    nest, other = open_nest(a), open_nest(b)
    if nest is None or other is None:
        return a
    return nest[1]([_joined_nest(x, y) for x, y in zip(nest[0], other[0], strict=True)])
