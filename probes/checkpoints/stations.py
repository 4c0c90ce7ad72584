"""The checkpoints of one command as the networks that they are, each loaded when it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from typing_extensions import override

from probes.checkpoints.load import load_checkpoint
from probes.instruments.stations import Station

if TYPE_CHECKING:
    from landscape import Objective


class Stations(Sequence[Station]):
    """By step. Looking at one leaves its weights in the model."""

    def __init__(self, checkpoints: Sequence[tuple[int, Path]], objective: Objective) -> None:
        self._checkpoints = sorted(checkpoints, key=lambda item: item[0])
        self._objective = objective

    @override
    def __len__(self) -> int:
        return len(self._checkpoints)

    @overload
    def __getitem__(self, index: int) -> Station: ...

    @overload
    def __getitem__(self, index: slice) -> list[Station]: ...

    @override
    def __getitem__(self, index: int | slice) -> Station | list[Station]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        from landscape.objective.running import own_buffers

        step, path = self._checkpoints[index]
        load_checkpoint(path, self._objective.model)
        buffers = [t.cpu() for t in own_buffers(self._objective)]
        return Station(step, self._objective.theta().cpu(), buffers)
