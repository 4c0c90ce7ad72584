"""A closure that is one function while a step lasts: one dropout mask, and one update of running statistics.

A step that evaluates its closure at several points compares losses of one function only if all of them meet the same
random numbers. The first call of a step runs as it is. Each later one meets the random states (python, numpy, torch)
and the buffers of the modules that it runs as the first one met them, and leaves both as the first one left them.
Generators of the closure's own are not wound back.

Modules are found by a hook on all of them. What `torch.compile` has compiled would be compiled again for each new hook:
once such a module was met, its parts are those of the steps after as well, and there are no hooks any more.
"""

from __future__ import annotations

import random
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Buffers = dict[str, Tensor | None]


class Repeatable:
    """A closure for one step; see the module.

    Args:
        closure: what is called.
        parameters: those whose devices have random states of their own.
        known: what the caller keeps between steps for this class: the modules to look at where there are no hooks.
    """

    def __init__(
        self, closure: Callable[[], Any], parameters: Iterable[Tensor], known: weakref.WeakSet[nn.Module]
    ) -> None:
        self._closure, self._known = closure, known
        self._devices = {p.device for p in parameters if p.device.type not in ("cpu", "meta")}
        self._restore: Callable[[], None] | None = None
        self._first: dict[int, Buffers] = {}  # the buffers of each module before the first call

    def __call__(self) -> Any:
        """The closure's value: the first time as it runs, then from where that began."""
        if self._restore is not None:
            return self.aside(self._closure)
        self._restore = _keep_random_states(self._devices)
        with self._each_module(self._remember):
            return self._closure()

    def aside(self, closure: Callable[[], Any]) -> Any:
        """What this or another closure returns, from the random states of the first call; no mark is left."""
        restore_after = _keep_random_states(self._devices)
        if self._restore is not None:
            self._restore()
        torch.clear_autocast_cache()  # it may hold the weights of another point
        lent: dict[int, tuple[Buffers, Buffers]] = {}

        def lend(module: nn.Module) -> None:
            if id(module) not in lent:
                self._remember(module)
                lent[id(module)] = module._buffers, dict(module._buffers)
                module._buffers.update({name: _copy(b) for name, b in self._first[id(module)].items()})

        try:
            with self._each_module(lend):
                return closure()
        finally:
            for table, owned in lent.values():
                table.update(owned)
            restore_after()
            torch.clear_autocast_cache()

    def _remember(self, module: nn.Module) -> None:
        if id(module) not in self._first:
            self._first[id(module)] = {name: _copy(b) for name, b in module._buffers.items()}

    @contextmanager
    def _each_module(self, see: Callable[[nn.Module], None]) -> Iterator[None]:
        """`see` is called with each module that has buffers before it runs."""
        if self._known:
            for module in self._known:
                see(module)
            yield
            return
        met: list[nn.Module] = []
        compiled: list[bool] = []

        def hook(module: nn.Module, inputs: Any) -> None:
            whole = "_orig_mod" in module._modules
            compiled.append(whole)
            for part in module.modules() if whole else (module,):
                if part._buffers:
                    met.append(part)
                    see(part)

        handle = register_module_forward_pre_hook(hook)
        try:
            if "torch._dynamo" not in sys.modules:
                yield
            else:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="Using `torch.compile")
                    yield
        finally:
            handle.remove()
        if any(compiled):
            self._known.update(met)


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()


def _keep_random_states(devices: Iterable[torch.device]) -> Callable[[], None]:
    """Brings back the random states of now: python's, numpy's, and torch's on the CPU and these devices."""
    where = {d: () if d.type == "mps" else (d,) for d in devices}  # there is only one mps
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    others = [(d, torch.get_device_module(d).get_rng_state(*at)) for d, at in where.items()]

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        for d, state in others:
            torch.get_device_module(d).set_rng_state(state, *where[d])

    return restore
