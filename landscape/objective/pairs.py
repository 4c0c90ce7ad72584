"""What a batch may look like: a pair, a dict, inputs alone, an object of a class of its own; what data of one batch is.

Numpy arrays and lists of numbers become tensors; their floating numbers take the dtype of the model's vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import Dataset, IterableDataset

from landscape.objective.batch import has_moves, open_nest

_TARGETS = ("labels", "label", "targets", "target", "y")


def batches_of(data: Any) -> Any:
    """The batches as an iterable. Raises `TypeError` for what is no data."""
    if isinstance(data, Mapping) or _alone(data):
        return [data]
    if isinstance(data, tuple | list) and len(data) == 2 and _is_pair(data[0], data[1], fixed=isinstance(data, tuple)):
        return [tuple(data)]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise TypeError("the data is a Dataset of single samples: wrap it in a torch.utils.data.DataLoader")
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise TypeError(
            "data must be (inputs, targets), a dict, inputs alone, or an iterable of such batches, not "
            f"{type(data).__name__}"
        )
    return data


def pair(raw: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """(inputs, targets) of what a loader yields.

    A dict goes to the model whole and its "labels" are the targets; an object of a class of its own likewise, with
    its `labels`, `targets` or `y`. The targets of inputs alone are None.
    """
    if isinstance(raw, Mapping):
        inputs = tensors_of(raw, dtype)
        return inputs, inputs.get("labels")
    if type(raw) in (tuple, list) and len(raw) == 2:
        return tensors_of(raw[0], dtype), tensors_of(raw[1], dtype)
    if type(raw) in (tuple, list) and len(raw) == 1:  # what a DataLoader over TensorDataset(X) yields
        return tensors_of(raw[0], dtype), None
    if isinstance(raw, tuple) and not isinstance(raw, PackedSequence) and len(raw) == 2:
        return tensors_of(raw[0], dtype), tensors_of(raw[1], dtype)
    if _alone(raw):
        return tensors_of(raw, dtype), tensors_of(_targets_of(raw), dtype)
    kind = f"{type(raw).__name__} of {len(raw)} items" if isinstance(raw, tuple | list) else type(raw).__name__
    raise TypeError(f"a batch must be a pair (inputs, targets) or a dict, not a {kind}: map the loader to such pairs")


def tensors_of(value: Any, dtype: torch.dtype) -> Any:
    """The same nest with numpy arrays and lists of numbers made tensors; floating ones in `dtype`."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiubc":
            return value  # of strings or objects
        made = torch.from_numpy(value if value.flags.writeable else value.copy())
        return made.to(dtype) if made.is_floating_point() else made
    if isinstance(value, list) and value and _numbers(value):
        try:
            made = torch.tensor(value)
        except ValueError:  # rows of different lengths
            return value
        return made.to(dtype) if made.is_floating_point() else made
    if isinstance(value, Tensor):
        return value
    nest = open_nest(value)
    if nest is None:
        return value
    items = list(nest[0])
    made_items = [tensors_of(item, dtype) for item in items]
    if isinstance(value, Mapping) or any(a is not b for a, b in zip(items, made_items, strict=True)):
        return nest[1](made_items)
    return value


def _numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(_numbers(item) for item in value)
    return isinstance(value, bool | int | float | np.number)


def _array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | PackedSequence) or (isinstance(value, list) and _numbers(value))


def _is_pair(first: Any, second: Any, fixed: bool) -> bool:
    """Whether two items are (inputs, targets) and not two batches.

    A tensor or an array as the second item makes a pair. So does one as the first, which alone could be a batch only
    if the second were one as well; and two dicts, or a dict and None, that cannot both be batches of one model.
    """
    if _array(second) and not (isinstance(second, list) and not second):
        return True
    if _array(first):
        return True
    if second is None:
        return True
    if fixed and isinstance(second, Mapping):
        both = isinstance(first, Mapping) and ("labels" in first or set(first) == set(second))
        return not both
    return fixed and _alone(first) and not _alone(second)


def _alone(value: Any) -> bool:
    """Whether this is a batch by itself: a tensor, an array, a packed sequence, a graph."""
    if isinstance(value, Tensor | np.ndarray | PackedSequence):
        return True
    if isinstance(value, tuple | list | Dataset | Mapping):
        return False
    return has_moves(value) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _targets_of(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | PackedSequence):
        return None
    return next((found for name in _TARGETS if (found := getattr(value, name, None)) is not None), None)
