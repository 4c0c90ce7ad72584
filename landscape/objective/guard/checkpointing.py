"""Activation checkpointing while a model is measured: differentiable twice, and recomputed as it was computed.

Reentrant checkpointing refuses `torch.autograd.grad`, so it runs as the other kind. What is recomputed in a backward
pass starts from what the segment started from in the forward pass: attributes, buffers, generators of the model's own,
Python's and numpy's random states (torch itself sees to its own). So it gives the same numbers and leaves no mark.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch.utils.checkpoint
from torch import nn

from landscape.objective.guard.belongings import Belongings
from landscape.objective.state import borrowed_buffers

_GENERATOR = "_checkpoint_without_reentrant_generator"  # what torch.utils.checkpoint.checkpoint calls


@contextmanager
def recomputed_alike(module: nn.Module, roots: Mapping[str, Any]) -> Iterator[None]:
    """Inside, `torch.utils.checkpoint` works as said above, for the module and what else its function depends on."""
    library = torch.utils.checkpoint
    generator, function = getattr(library, _GENERATOR), library.CheckpointFunction

    def faithful(fn: Any, preserve: bool, context_fn: Callable[[], tuple[Any, Any]], *rest: Any, **named: Any) -> Any:
        moment = _Moment(module, roots)

        def contexts() -> tuple[Any, Any]:
            forward, recomputation = context_fn()
            return forward, _Recomputation(recomputation, moment)

        return generator(fn, preserve, contexts, *rest, **named)

    try:
        setattr(library, _GENERATOR, faithful)
        library.CheckpointFunction = _NonReentrant  # type: ignore[misc,assignment]
        yield
    finally:
        setattr(library, _GENERATOR, generator)
        library.CheckpointFunction = function  # type: ignore[misc]


class _NonReentrant:
    """In the place of the reentrant function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve)


class _Moment:
    """What a segment starts from."""

    def __init__(self, module: nn.Module, roots: Mapping[str, Any]) -> None:
        self._module = module
        self._roots = roots
        self._belongings = Belongings(roots)
        # buffers are clones that were made for this pass: those written into since then
        self._buffers = [
            (m._buffers, name, b.detach().clone())
            for m in module.modules()
            for name, b in m._buffers.items()
            if b is not None and b._version
        ]
        self._random = random.getstate(), np.random.get_state()  # noqa: NPY002

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside, it is that moment again."""
        now, python, legacy = Belongings(self._roots), random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            self._belongings.restore(buffers=False)
            random.setstate(self._random[0])
            np.random.set_state(self._random[1])  # noqa: NPY002
            with borrowed_buffers(self._module):
                for table, name, value in self._buffers:
                    table[name] = value.clone()
                yield
        finally:
            now.restore(buffers=False)
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


class _Recomputation:
    """The context of every recomputation of a segment, of which there may be many."""

    def __init__(self, given: AbstractContextManager[Any], moment: _Moment) -> None:
        self._given = given
        self._moment = moment
        self._open: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._moment.again())
        stack.enter_context(self._given)
        self._open.append(stack)

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.pop().__exit__(*error)
