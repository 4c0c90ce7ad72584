"""The containers that a model's belongings lie in, as they were at one moment."""

from __future__ import annotations

import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Values that no pass can write into.
ATOMS = frozenset(
    {bool, int, float, complex, str, bytes, type(None), type, type(...), types.ModuleType, types.BuiltinFunctionType}
    | {torch.dtype, torch.device, torch.Size, torch.layout, np.dtype, range, slice}
)

Path = tuple[Any, ...]  # (path of the owner, key): put into words only when they are needed


def in_words(path: Path) -> str:
    """The path as one reads it: `encoder.layer.0.cache`."""
    if not path:
        return ""
    owner, key = path
    before = in_words(owner) if owner else ""
    return f"{before}.{key}" if before else str(key)


class Table:
    """A dict, list, set or queue, and what it held.

    Attributes:
        owner: the container; a module's or an object's `__dict__` is one.
        entries: what it held, key and value.
        records: it belongs to a callable, which may count or log: only tensors in it are put back.
    """

    def __init__(self, path: Path, owner: Any, records: bool) -> None:
        self.path = path
        self.owner = owner
        self.records = records
        self.keyed = isinstance(owner, dict)
        self.entries: Any = dict(owner) if self.keyed else list(owner)

    def holds(self) -> bool:
        """Whether the same objects are in it still."""
        if len(self.owner) != len(self.entries):
            return False
        if self.keyed:
            return (
                all(map(is_, self.owner.values(), self.entries.values())) and self.owner.keys() == self.entries.keys()
            )
        return all(map(is_, self.owner, self.entries))

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Key and value of all entries, as they were."""
        return iter(self.entries.items()) if self.keyed else enumerate(self.entries)

    def restore(self) -> None:
        """Put back what it held."""
        if self.holds() or (self.records and not self._concerns_tensors()):
            return
        if isinstance(self.owner, list):
            self.owner[:] = self.entries
        elif self.keyed:  # subclasses may forbid what dict can
            base = OrderedDict if isinstance(self.owner, OrderedDict) else dict
            base.clear(self.owner)
            base.update(self.owner, self.entries)
        else:
            self.owner.clear()
            add: Callable[[Any], None] = self.owner.extend if isinstance(self.owner, deque) else self.owner.update
            add(self.entries)

    def others(self) -> list[Any]:
        """Keys under which there is another object than before, or a new one."""
        return [key for key, value in self.owner.items() if self.entries.get(key, self) is not value]

    def _concerns_tensors(self) -> bool:
        now = self.owner.values() if self.keyed else self.owner
        before = self.entries.values() if self.keyed else self.entries
        return any(isinstance(value, Tensor | nn.Module) for value in (*now, *before))
