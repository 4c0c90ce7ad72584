"""What is known of the axes of tensors while a forward pass is followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from landscape.surface.units.axes import Axes, Axis, Units, pin


class Known:
    """The axes of each tensor met so far.

    Attributes:
        inside: the modules that run, in words.
        written, read: ids of tensors, each with the axis along which it makes units' values or takes them up.
    """

    def __init__(self) -> None:
        self._axes: dict[int, tuple[Tensor, Axes]] = {}  # the tensor is held, so that its id stays its own
        self.inside: list[str] = []
        self.written: set[tuple[int, int]] = set()
        self.read: set[tuple[int, int]] = set()

    def add(self, parameters: Iterable[tuple[Tensor, bool]]) -> None:
        """Parameters, and whether a permutation may reach them: each axis has units of its own."""
        for p, chosen in parameters:
            axes: Axes = [Axis(Units(size)) for size in p.shape]
            if not chosen:  # it is the same in all vectors, so that its units stay
                pin(*axes)
            self.set(p, axes)

    def axes(self, t: Tensor) -> Axes:
        """What the axes of a tensor carry."""
        return list(self._axes[id(t)][1]) if id(t) in self._axes else [None] * t.ndim

    def set(self, t: Tensor, axes: Sequence[Axis | None]) -> None:
        """Note what the axes of a tensor carry."""
        assert len(axes) == t.ndim
        self._axes[id(t)] = t, list(axes)

    def carries(self, t: Any) -> bool:
        """Whether some axis of it may be permuted."""
        return any(axis is not None and not axis.pinned for axis in self.axes(t))

    def reads(self, weight: Tensor, axis: int) -> None:
        """The weight takes units up along this axis."""
        self.read.add((id(weight), axis))

    def writes(self, weight: Tensor, axis: int) -> None:
        """The weight makes the units' values along this axis."""
        self.written.add((id(weight), axis))

    def place(self) -> str:
        """The module that runs, in words."""
        return self.inside[-1] if self.inside else "the forward function"
