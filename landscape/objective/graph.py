"""Walking over an autograd graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def nodes(roots: Iterable[Tensor]) -> Iterator[Any]:
    """The nodes of the graphs of `roots`, each once; a leaf's node has the leaf as its `variable`."""
    seen: set[Any] = set()
    stack = [root.grad_fn for root in roots if root.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions if following is not None)
        yield node
