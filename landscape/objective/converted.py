"""The tensors of a model in another dtype or on another device: they take the places of its own while it is measured.

The user's own modules are run, so whatever closes over the model (a penalty on `model.parameters()`, a `forward` that
calls the model by its name, a submodule that the loss shares) meets the converted tensors too. Only what holds the
parameter *objects*, such as a list made before or an optimizer, is out of reach: `follows` finds it in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.objective.graph import nodes

# What recurrent layers keep of their parameters beside the table; made anew by their next forward pass.
_RECURRENT = ("_flat_weights", "_flat_weight_refs")


class Converted:
    """A stand-in for every tensor of the modules that has to be converted; the others stand for themselves."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device | None, dtype: torch.dtype | None) -> None:
        self._modules = modules
        self._device, self._dtype = device, dtype
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of the original: it and its stand-in
        self.follow()

    def __call__(self, original: Tensor) -> Tensor:
        """What stands for a tensor of the model."""
        pair = self._pairs.get(id(original))
        return original if pair is None else pair[1]

    def __bool__(self) -> bool:
        """Whether anything had to be converted."""
        return bool(self._pairs)

    def follow(self) -> None:
        """Bring the stand-ins up to date with the originals; tensors that are new in the model get a new one."""
        pairs = {}
        with torch.inference_mode(False), torch.no_grad():
            for _, _, t in self._places():
                if id(t) in pairs or self._fits(t):
                    continue
                if id(t) in self._pairs:
                    pairs[id(t)] = self._pairs[id(t)]
                    pairs[id(t)][1].copy_(t.detach())
                else:
                    pairs[id(t)] = (t, self._made(t))
        self._pairs = pairs

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the stand-ins are the modules' parameters and buffers; afterwards the originals are again."""
        if not self._pairs:
            yield
            return
        owned = [(table, name, t) for table, name, t in self._places() if id(t) in self._pairs]
        flat = [
            (vars(m), k, vars(m)[k]) for top in self._modules for m in top.modules() for k in _RECURRENT if k in vars(m)
        ]
        try:
            for table, name, t in owned:
                table[name] = self._pairs[id(t)][1]
            yield
        finally:
            for table, name, t in [*owned, *flat]:
                table[name] = t

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Tensors that are in neither the model, the loss nor the data stay as they are: says so where they clash."""
        try:
            yield
        except RuntimeError as error:
            clash = ("same dtype", "scalar type", "expected m1 and m2", "same device", "dtype but got", "input type")
            if not any(words in str(error).lower() for words in clash):
                raise
            raise RuntimeError(
                f"with dtype= or device= the model meets a tensor of another dtype or device ({error}): one that is in "
                "neither the model, the loss nor the data, or a cast in forward such as .float(); convert it there, or "
                "leave dtype= and device= out"
            ) from error

    @contextmanager
    def _originals_recorded(self) -> Iterator[None]:
        originals = [t for t, _ in self._pairs.values() if isinstance(t, nn.Parameter) and t.is_floating_point()]
        required = [t.requires_grad for t in originals]
        try:
            for t in originals:
                t.requires_grad_(True)
            yield
        finally:
            for t, was in zip(originals, required, strict=True):
                t.requires_grad_(was)

    def follows(self, loss: Callable[[], Tensor]) -> bool:
        """Whether a loss, made while measuring, is a function of the stand-ins alone.

        A graph that leads back to an original has a term that holds the parameter objects and does not move here.
        """
        with self._originals_recorded():
            return not self._leads_back(loss())

    def _leads_back(self, result: Tensor) -> bool:
        originals = {id(original) for original, _ in self._pairs.values()}
        return any(id(getattr(node, "variable", None)) in originals for node in nodes([result]))

    def _places(self) -> Iterator[tuple[Any, str, Tensor]]:
        for top in self._modules:
            for m in top.modules():
                for table in (m._parameters, m._buffers):
                    yield from [(table, name, t) for name, t in table.items() if t is not None]

    def _fits(self, t: Tensor) -> bool:
        same = self._dtype is None or not t.is_floating_point() or t.dtype == self._dtype
        return same and (self._device is None or t.device == self._device)

    def _made(self, t: Tensor) -> Tensor:
        dtype = self._dtype if t.is_floating_point() else None
        copy = t.detach().to(device=self._device, dtype=dtype, copy=True)
        return nn.Parameter(copy, t.requires_grad) if isinstance(t, nn.Parameter) else copy
