"""A scope in which a Lightning module may run its training step, and nothing of it is seen afterwards.

A training step logs, counts in metrics and appends to lists of its own; in here what it logs is dropped, and the
attributes of all modules are put back: what they are, what lists, dicts and sets hold, and the values of tensors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_OWN = {"_parameters", "_buffers", "_modules", "_trainer"}  # the objective looks after these


@contextmanager
def undisturbed(module: Any, trainer: Any) -> Iterator[None]:
    """Run `module.training_step` in here; `trainer` is lent to a copy, which has none."""
    with ExitStack() as stack:
        for part in module.modules():
            stack.callback(_Attributes(part).put_back)
        if module._trainer is None:
            module._trainer = trainer
            stack.callback(setattr, module, "_trainer", None)
        if trainer.loggers:
            stack.callback(setattr, trainer, "loggers", trainer.loggers)
            trainer.loggers = [_Silent()]
        for name in ("log", "log_dict", "print"):
            module.__dict__[name] = _nothing
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """In place of `log` and its like."""


class _Silent:
    """In place of a logger: whatever is called on it, or on its `experiment`, does nothing."""

    def __getattr__(self, name: str) -> Any:
        return _Silent()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self


class _Attributes:
    """The attributes of one module as they stand."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._values = {name: value for name, value in vars(module).items() if name not in _OWN}
        self._contents = {name: _copy(value) for name, value in self._values.items()}

    def put_back(self) -> None:
        now = vars(self._module)
        for name in [name for name in now if name not in self._values and name not in _OWN]:
            del now[name]
        for name, value in self._values.items():
            now[name] = value
            _restore(value, self._contents[name])


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._version, value.detach().clone()
    return value.copy() if type(value) in (list, dict, set, deque) else None


def _restore(value: Any, content: Any) -> None:
    if content is None:
        return
    if isinstance(value, Tensor):
        version, values = content
        if value._version != version:
            with torch.no_grad():
                value.copy_(values)
    elif type(value) is dict or type(value) is set:
        value.clear()
        value.update(content)
    else:
        value.clear()
        value.extend(content)
