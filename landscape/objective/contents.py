"""Copies of the tensors and arrays among a model's belongings: what tells that one was written into."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.objective.belongings import Belongings, version
from landscape.objective.tables import in_words


class Contents:
    """Copies of all tensors and arrays among some belongings."""

    def __init__(self, belongings: Belongings) -> None:
        self._belongings = belongings
        self._tensors = [(path, t, t.detach().clone(), before) for path, t, before in belongings.tensors]
        self._arrays = [(path, array, array.copy()) for path, array in belongings.arrays]

    def put_back(self) -> frozenset[str]:
        """Everything is what it was, contents too; names of the tensors and arrays that were written into."""
        self._belongings.restore()
        written = [path for path, t, copy, before in self._tensors if _put_back(t, copy) or version(t) != before]
        for path, array, kept in self._arrays:
            if array.tobytes() != kept.tobytes():
                array[...] = kept
                written.append(path)
        return frozenset(in_words(path) for path in written)


def _put_back(t: Tensor, copy: Tensor) -> bool:
    """Whether the tensor's values were others than the copy's; now they are the same."""
    if torch.equal(t.detach(), copy) or torch.equal(torch.nan_to_num(t.detach()), torch.nan_to_num(copy)):
        return False
    t.data.copy_(copy)
    return True
