"""A scope in which a Lightning module may run its training step and nobody hears of it: what it logs is dropped.

What the step leaves in attributes (metrics, lists of its own) the objective puts back, as it does for every model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def unheard(module: Any, trainer: Any) -> Iterator[None]:
    """Run `module.training_step` in here; `trainer` is lent to a copy, which has none."""
    with ExitStack() as stack:
        if module._trainer is None:
            module._trainer = trainer
            stack.callback(setattr, module, "_trainer", None)
        if trainer.loggers:
            stack.callback(setattr, trainer, "loggers", trainer.loggers)
            trainer.loggers = [_Silent()]
        for name in ("log", "log_dict", "print"):
            module.__dict__[name] = _nothing
            stack.callback(module.__dict__.pop, name, None)
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """In place of `log` and its like."""


class _Silent:
    """In place of a logger: whatever is called on it, or on its `experiment`, does nothing."""

    def __getattr__(self, name: str) -> Any:
        return _Silent()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self
