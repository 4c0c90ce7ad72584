"""The units of a network, found by running it once on a few samples and following which axes meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from landscape.objective.batch import tensors_in
from landscape.objective.objective import Objective
from landscape.operators.functions import name_of
from landscape.surface.units.axes import Units, pin
from landscape.surface.units.known import Known
from landscape.surface.units.shapes import RULES


@dataclass(frozen=True)
class Use:
    """Where units lie: an axis of a parameter, whose index is (outer, unit, inner)."""

    name: str
    axis: int
    outer: int
    inner: int


@dataclass(frozen=True)
class Group:
    """Units that go together.

    Attributes:
        size: how many.
        uses: every place that has to be permuted with them.
        written, read: those of the uses that make the units' values, and that take them up.
        free: a permutation of them leaves the function as it is.
    """

    size: int
    uses: tuple[Use, ...]
    written: tuple[Use, ...]
    read: tuple[Use, ...]
    free: bool


def groups(objective: Objective) -> list[Group]:
    """The units of the objective's model in the order in which its parameters lie.

    Raises `TypeError` that names the module and the operation which there is no rule for.
    """
    few = objective.alone().sample()
    with few.measuring(derivative=False), torch.no_grad():
        tracer = Tracer(few)
        with tracer.naming(few.module):
            for batch in few.sweep():
                with tracer:
                    outputs = few.evaluate(batch).outputs
                for t in tensors_in(outputs):
                    pin(*tracer.known.axes(t))
        return tracer.groups()


class Tracer(TorchFunctionMode):
    """Follows the axes of all tensors through the operations of a forward pass."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.known = Known()
        self._chosen = dict(zip(objective.names, objective.leaves(), strict=True))
        self._parameters = dict(objective.module.named_parameters())
        self.known.add((p, name in self._chosen) for name, p in self._parameters.items())

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        before = list(tensors_in([args, options]))
        out = func(*args, **options)
        made, known = list(tensors_in(out)), self.known
        if not made or not any(known.carries(t) for t in before):
            for t in made:
                if not any(t is given for given in before):
                    known.set(t, [None] * t.ndim)
            return out
        name = name_of(func)
        one = RULES.get(name)
        if one is None:
            raise TypeError(
                f"{known.place()} uses torch's {name}, which units cannot be followed through: there is no rule for it"
            )
        one(known, out, *args, **options)
        return out

    @contextmanager
    def naming(self, module: nn.Module) -> Iterator[None]:
        """Inside, it is known which of the model's modules runs."""
        names = {id(m): f"{name or 'the model'} ({type(m).__name__})" for name, m in module.named_modules()}

        def enter(m: nn.Module, inputs: Any) -> None:
            self.known.inside.append(names.get(id(m), type(m).__name__))

        def leave(m: nn.Module, inputs: Any, outputs: Any) -> None:
            self.known.inside.pop()

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def groups(self) -> list[Group]:
        """What was found."""
        uses: dict[int, tuple[Units, list[tuple[Use, tuple[int, int]]]]] = {}
        for name, p in self._parameters.items():
            for i, axis in enumerate(self.known.axes(p)):
                assert axis is not None
                root = axis.root
                found = uses.setdefault(id(root.units), (root.units, []))[1]
                found.append((Use(name, i, root.outer, root.inner), (id(p), i)))
        made = []
        for units, found in uses.values():
            if units.size < 2 or any(use.name not in self._chosen for use, _ in found):
                continue
            every = tuple(use for use, _ in found)
            written = tuple(use for use, key in found if key in self.known.written)
            read = tuple(use for use, key in found if key in self.known.read)
            made.append(Group(units.size, every, written, read, not units.pinned))
        return made
