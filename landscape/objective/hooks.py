"""Hooks on modules for the length of a block: what modules are called with, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]


@contextmanager
def hooked(modules: Iterable[nn.Module], seen: Hook) -> Iterator[None]:
    """Inside, `seen(module, args, kwargs, output)` is called after each call of one of these modules."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(seen, with_kwargs=True).remove)
        yield


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a module was called with, the first where there are several; None for anything else."""
    first = args[0] if args else next(iter(kwargs.values()), None)
    return first if isinstance(first, Tensor) else None
