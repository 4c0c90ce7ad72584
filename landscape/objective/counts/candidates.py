"""Counts of loss terms that losses commonly divide by, in the words in which a user would pass them as `count=`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from landscape.objective.outputs.nests import main_output

TOLERANCE = 2e-3  # relative, between counts or denominators that are the same
_PADDING = (0, -1, 1, 255)  # values of targets that are left out, beside -100


def candidate(first: tuple[Any, Any], second: tuple[Any, Any], ratio: float) -> str | None:
    """A count, in words, that has this ratio between two batches, each (outputs, targets)."""
    for (text, a), (_, b) in zip(_candidates(*first), _candidates(*second), strict=False):
        if a > 0 and abs(b / a / ratio - 1) < TOLERANCE:
            return text
    return None


def _candidates(outputs: Any, targets: Any) -> Iterator[tuple[str, float]]:
    for name, t in named_targets(targets, "targets"):
        whole = not t.is_floating_point() and t.dtype != torch.bool
        if whole:
            yield f"({name} != -100).sum()", float((t != -100).sum())
            if t.ndim > 1:
                yield f"({name}[:, 1:] != -100).sum()", float((t[:, 1:] != -100).sum())
        yield f"len({name})", float(len(t))
        yield f"{name}.numel()", float(t.numel())
        if t.dtype == torch.bool or bool(((t == 0) | (t == 1)).all()):
            yield f"{name}.sum()", float(t.sum())
        if whole:
            for value in _PADDING:
                yield f"({name} != {value}).sum()", float((t != value).sum())
                if t.ndim > 1:
                    yield f"({name}[:, 1:] != {value}).sum()", float((t[:, 1:] != value).sum())
    main = main_output(outputs)
    if main is not None and main.ndim:
        name = "outputs" if isinstance(outputs, Tensor) else "outputs.logits"
        yield f"len({name})", float(len(main))
        yield f"{name}.shape[:-1].numel()", float(main.shape[:-1].numel())
        yield f"{name}.numel()", float(main.numel())


def named_targets(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of targets that have dimensions, each with the words that reach it."""
    if isinstance(value, Tensor):
        if value.ndim:
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_targets(item, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list) and len(value) < 8:
        for i, item in enumerate(value):
            yield from named_targets(item, f"{name}[{i}]")
