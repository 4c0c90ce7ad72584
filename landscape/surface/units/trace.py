"""The units of a network, found by running it once on a few samples and following which axes meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from landscape.objective.batch import tensors_in
from landscape.objective.objective import Objective
from landscape.surface.units.axes import Axes, Axis, Units, pin
from landscape.surface.units.rules import name_of
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
                    pin(*tracer.axes(t))
        return tracer.groups()


class Tracer(TorchFunctionMode):
    """Follows the axes of all tensors through the operations of a forward pass."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Axes]] = {}  # the tensor is held, so that its id stays its own
        self._own: dict[str, Axes] = {}
        self._names: dict[int, str] = {}
        self._inside: list[str] = []
        self.written: set[tuple[int, int]] = set()  # ids of tensors with an axis
        self.read: set[tuple[int, int]] = set()
        chosen = dict(zip(objective.names, objective.leaves(), strict=True))
        for name, p in objective.module.named_parameters():
            axes: Axes = [Axis(Units(size)) for size in p.shape]
            if name not in chosen:  # it is the same in all vectors, so that its units stay
                pin(*axes)
            self._known[id(p)] = p, axes
            self._own[name], self._names[id(p)] = axes, name
        self._chosen = list(chosen)

    def axes(self, t: Tensor) -> Axes:
        """What the axes of a tensor carry."""
        return list(self._known[id(t)][1]) if id(t) in self._known else [None] * t.ndim

    def set(self, t: Tensor, axes: Sequence[Axis | None]) -> None:
        """Note what the axes of a tensor carry."""
        assert len(axes) == t.ndim
        self._known[id(t)] = t, list(axes)

    def carries(self, t: object) -> bool:
        """Whether some axis of it may be permuted."""
        return isinstance(t, Tensor) and any(axis is not None and not axis.pinned for axis in self.axes(t))

    def reads(self, weight: Tensor, axis: int) -> None:
        """The weight takes units up along this axis."""
        self.read.add((id(weight), axis))

    def writes(self, weight: Tensor, axis: int) -> None:
        """The weight makes the units' values along this axis."""
        self.written.add((id(weight), axis))

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        before = [(t, t.shape) for t in tensors_in([args, options])]
        out = func(*args, **options)
        made = [t for t in tensors_in(out) if isinstance(t, Tensor)]
        if not made or not any(self.carries(t) for t, _ in before):
            for t in made:
                if not any(t is given for given, _ in before):
                    self.set(t, [None] * t.ndim)
            return out
        name = name_of(func)
        rule = RULES.get(name)
        if rule is None:
            raise TypeError(
                f"{self.place()} uses torch's {name}, which units cannot be followed through: there is no rule for it"
            )
        rule(self, out, *args, **options)
        return out

    def place(self) -> str:
        """The module that runs, in words."""
        return self._inside[-1] if self._inside else "the forward function"

    @contextmanager
    def naming(self, module: nn.Module) -> Iterator[None]:
        """Inside, it is known which of the model's modules runs."""
        names = {id(m): f"{name or 'the model'} ({type(m).__name__})" for name, m in module.named_modules()}

        def enter(m: nn.Module, inputs: Any) -> None:
            self._inside.append(names.get(id(m), type(m).__name__))

        def leave(m: nn.Module, inputs: Any, outputs: Any) -> None:
            self._inside.pop()

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def groups(self) -> list[Group]:
        """What was found."""
        uses: dict[int, tuple[Units, list[tuple[Use, tuple[int, int]]]]] = {}
        places = {name: number for number, name in self._names.items()}
        for name in self._own:
            for i, axis in enumerate(self._own[name]):
                assert axis is not None
                root = axis.root
                found = uses.setdefault(id(root.units), (root.units, []))[1]
                found.append((Use(name, i, root.outer, root.inner), (places[name], i)))
        made = []
        for units, found in uses.values():
            if units.size < 2 or any(use.name not in self._chosen for use, _ in found):
                continue
            every = tuple(use for use, _ in found)
            written = tuple(use for use, key in found if key in self.written)
            read = tuple(use for use, key in found if key in self.read)
            made.append(Group(units.size, every, written, read, not units.pinned))
        return made
