"""Which module's derivatives are wrong: each is tried by itself on the inputs that it gets from a few samples.

A module is held against differences in its parameters and inputs together, on a fixed functional of its outputs that
is curved in them, so that a straight-through or scaled gradient shows as well as a backward that is opaque.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape.objective import state
from landscape.objective.batch import convert, tensors_in
from landscape.objective.objective import Objective
from landscape.operators.check import judge

_STEPS = {torch.float64: (1e-6, 1e-7, 1e-8), torch.float32: (1e-2, 3e-3)}
Call = tuple[tuple[Any, ...], dict[str, Any]]


def culprit(objective: Objective) -> str:
    """The names of the smallest modules that are off, in words; the model's or the loss's when none is by itself."""
    model = objective.module
    off: list[str] = []
    with objective.measuring():
        calls = first_calls(objective)
        # children before their parents: a module that holds one that is off says nothing new
        for name, module in reversed(list(model.named_modules())):
            inside = any(other.startswith(f"{name}.") or name == "" for other in off)
            if module in calls and not inside and _is_off(module, calls[module], objective.device):
                off.append(name)
    if off == [""]:
        return f"{type(model).__name__}.forward (none of its submodules by itself)"
    if not off:
        return f"{type(model).__name__}, its forward= or its loss (no module by itself)"
    modules = dict(model.named_modules())
    words = [f"{name!r} ({type(modules[name]).__name__})" for name in reversed(off[-3:])]
    return ", ".join(words) + (f" and {len(off) - 3} more" if len(off) > 3 else "")


def first_calls(objective: Objective) -> dict[nn.Module, Call]:
    """What each submodule was first called with, detached."""
    calls: dict[nn.Module, Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module not in calls:
            calls[module] = (convert(args, _detached), convert(kwargs, _detached))

    with ExitStack() as stack:
        for module in objective.module.modules():
            handle = module.register_forward_pre_hook(note, with_kwargs=True)
            stack.callback(handle.remove)
        for _ in objective.evaluations():
            break
    return calls


def _detached(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _is_off(module: nn.Module, call: Call, device: torch.device) -> bool:
    try:
        alone = _Alone(module, call, device)
        scale = float(alone.theta.double().norm()) or 1.0
        generator = torch.Generator().manual_seed(1)
        v = torch.randn(alone.theta.numel(), generator=generator, dtype=torch.float64).to(alone.theta)
        v = v / v.norm()
        steps = [scale * step for step in _STEPS[alone.theta.dtype]]
        return judge(alone.product(v), lambda step: alone.difference(v, step), steps).verdict == "off"
    except Exception:  # a module that cannot be run by itself is not the one to name
        return False


class _Alone:
    """sum of u * y + y^2 / 2 over the outputs y of one module, as a function of its parameters and float inputs."""

    def __init__(self, module: nn.Module, call: Call, device: torch.device) -> None:
        self._module, self._call, self._device = module, call, device
        self._named = {name: p.detach() for name, p in module.named_parameters()}
        self._inputs = [t for t in tensors_in(call) if t.is_floating_point()]
        self._pieces = [*self._named.values(), *self._inputs]
        self.theta = torch.cat([t.reshape(-1) for t in self._pieces])

    def product(self, v: Tensor) -> Tensor:
        """H v by double backward."""
        theta = self.theta.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(self._value(theta), theta, create_graph=True)
        if not g.requires_grad:  # an opaque backward, and nothing else
            return torch.zeros_like(theta)
        (product,) = torch.autograd.grad(g, theta, v, allow_unused=True, materialize_grads=True)
        return product

    def difference(self, v: Tensor, step: float) -> Tensor:
        """H v by differences of the gradient."""
        ahead, behind = (self._gradient(self.theta + sign * step * v) for sign in (1.0, -1.0))
        return (ahead - behind) / (2 * step)

    def _gradient(self, theta: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_(True)
        return torch.autograd.grad(self._value(theta), theta)[0]

    def _value(self, theta: Tensor) -> Tensor:
        parts = theta.split([t.numel() for t in self._pieces])
        pieces = iter([part.reshape(t.shape) for part, t in zip(parts, self._pieces, strict=True)])
        named = {name: next(pieces) for name in self._named}
        given = {id(t): next(pieces) for t in self._inputs}
        args, kwargs = convert(self._call, lambda leaf: given.get(id(leaf), leaf))
        state.seed_everything(0, self._device)
        with state.borrowed_buffers(self._module):
            outputs = functional_call(self._module, named, args, kwargs)
        return _functional(outputs)


def _functional(outputs: Any) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    terms = []
    for y in _floats(outputs):
        u = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
        terms.append((u * y + 0.5 * y.square()).sum())
    return torch.stack(terms).sum()


def _floats(value: Any) -> Iterator[Tensor]:
    return (t for t in tensors_in(value) if t.is_floating_point())
