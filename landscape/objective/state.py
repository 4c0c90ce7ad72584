"""Measuring changes nothing: a scope in which a model may be run and differentiated twice, and leaves no mark.

Inside the scope autograd records, autocast is off, attention takes the math kernel (the fused ones have no second
derivative) and cuDNN's recurrent kernels are off (likewise). Afterwards the flags, buffers, hooks and all random
states are as they were, also after an exception.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.objective.settings import same
from landscape.objective.weight_norm import unfused_weight_norm

# The seed of every batch's forward pass: dropout becomes one fixed function of the parameters.
_FORWARD_SEED = 0x5EED

_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


class Parts:
    """The modules, parameters (by their first names) and buffers of a model, from one walk over it."""

    def __init__(self, model: nn.Module, stand_in: Callable[[Tensor], Tensor] = lambda t: t) -> None:
        self.modules: list[nn.Module] = []
        self.parameters: dict[str, nn.Parameter] = {}
        self.buffers: list[Tensor] = []
        seen: set[int] = set()
        for prefix, module in model.named_modules():
            self.modules.append(module)
            for name, p in module._parameters.items():
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    self.parameters[f"{prefix}.{name}" if prefix else name] = cast(nn.Parameter, stand_in(p))
            for b in module._buffers.values():
                if b is not None and id(b) not in seen:
                    seen.add(id(b))
                    self.buffers.append(stand_in(b))

    def contents(self) -> tuple[list[Tensor], list[bool]]:
        """All that the model's function depends on and that can be seen: tensors and training flags."""
        return [*self.parameters.values(), *self.buffers], [m.training for m in self.modules]


@contextmanager
def random_states(device: torch.device) -> Iterator[None]:
    """The random states of python, numpy and torch (CPU and `device`) are as before when the block ends."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)


def seed_everything(number: int, device: torch.device) -> None:
    """Seed python, numpy and torch from one number (only inside `random_states`)."""
    seed = _FORWARD_SEED + number
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def differentiable_twice(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Grad mode on, inference mode and autocast off, and only kernels that have second derivatives."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if device.type == "cuda" and any(isinstance(m, nn.RNNBase) for m in modules):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
        if "torch._dynamo" in sys.modules:  # what is compiled, parts or functions, has no second derivatives
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(unfused_weight_norm())
        with _no_lost_gradients():
            yield


@contextmanager
def _no_lost_gradients() -> Iterator[None]:
    """Reentrant checkpointing drops the gradient of what it wraps with no more than a warning."""
    lost = "None of the inputs have requires_grad=True"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=lost, category=UserWarning)
        try:
            yield
        except UserWarning as warning:
            if lost not in str(warning):
                raise
            raise RuntimeError(
                "torch.utils.checkpoint with use_reentrant=True loses the gradients of the layers that it wraps here: "
                "use use_reentrant=False"
            ) from warning


@contextmanager
def flags(parts: Parts, leaves: Sequence[nn.Parameter], mode: str) -> Iterator[None]:
    """Exactly `leaves` require grad, and the model is in `mode` ("as-is", "eval" or "train").

    Hooks on gradients, of the leaves and of modules, are off: what they make of a gradient is not a derivative of f.
    """
    chosen = {id(p) for p in leaves}
    parameters = parts.parameters.values()
    required = [p.requires_grad for p in parameters]
    hooks = [p._backward_hooks for p in leaves]
    training = [(m, m.training) for m in parts.modules]
    backward = [(vars(m), k, vars(m)[k]) for m in parts.modules for k in _BACKWARD_HOOKS if vars(m)[k]]
    sparse = [m for m in parts.modules if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse]
    try:
        for table, key, _ in backward:
            table[key] = OrderedDict()
        for e in sparse:  # sparse gradients cannot be differentiated again
            e.sparse = False
        for p in parameters:
            p.requires_grad_(id(p) in chosen)
        for p in leaves:  # a clipping hook would be applied to every product
            if p._backward_hooks:
                p._backward_hooks = None
        if mode != "as-is":
            for m, _ in training:
                m.training = mode == "train"
        yield
    finally:
        for e in sparse:
            e.sparse = True
        for table, key, hook_table in backward:
            table[key] = hook_table
        for m, was in training:
            m.training = was
        for p, hook in zip(leaves, hooks, strict=True):
            if hook:
                p._backward_hooks = hook
        for p, was in zip(parameters, required, strict=True):
            p.requires_grad_(was)


@contextmanager
def borrowed_buffers(model: nn.Module, others: Sequence[Tensor] | None = None) -> Iterator[None]:
    """The model runs on clones of its buffers: running statistics may be updated, the originals are not touched.

    others: to be cloned in their place, in the order of `Parts.buffers`.
    """
    owned: list[tuple[dict[str, Any], str, Tensor]] = []
    clones: dict[int, Tensor] = {}
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                owned.append((module._buffers, name, buffer))
                clones.setdefault(id(buffer), buffer.detach().clone())
    if others is not None:
        clones = {number: other.clone() for number, other in zip(clones, others, strict=True)}
    try:
        for table, name, buffer in owned:
            table[name] = clones[id(buffer)]
        yield
    finally:
        for table, name, buffer in owned:
            table[name] = buffer


class Snapshot:
    """What `look` returned at one moment, tensors and plain values, to tell later whether anything has changed.

    Versions and storages are compared first; edits through `p.data` raise no version, so the values are compared
    with a copy as well. That copy costs one more vector and makes the test exact.
    """

    def __init__(self, look: Callable[[], tuple[list[Tensor], Sequence[Any]]]) -> None:
        self._look = look
        self._tensors, self._flags = look()
        self._marks = [_mark(t) for t in self._tensors]
        self._copies = [t.detach().clone() for t in self._tensors]

    def holds(self) -> bool:
        """Whether they are the same tensor objects with the same values still, and the same flags."""
        tensors, flags = self._look()
        return (
            len(tensors) == len(self._tensors)
            and all(a is b for a, b in zip(tensors, self._tensors, strict=True))
            and [_mark(t) for t in tensors] == self._marks
            and same(flags, self._flags)
            and _equal(tensors, self._copies)
        )


def _mark(t: Tensor) -> tuple[int, int, torch.Size, torch.dtype]:
    return (t.data_ptr(), -1 if t.is_inference() else t._version, t.shape, t.dtype)


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether all pairs are equal, with one synchronisation on a device."""
    pairs = [(a.detach(), b) for a, b in zip(first, second, strict=True)]
    if all(a.device.type == "cpu" for a, _ in pairs):
        return all(torch.equal(a, b) for a, b in pairs)
    different = [(a != b).any() for a, b in pairs if a.numel()]
    return not different or not bool(torch.stack([d.to(different[0].device) for d in different]).any())
