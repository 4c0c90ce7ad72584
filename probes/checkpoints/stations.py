"""The checkpoints of one command as the networks that they are, each loaded when it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from typing_extensions import override

from probes.checkpoints.load import load_checkpoint
from probes.errors import UserError
from probes.hashes import hash_of
from probes.instruments.stations import Station, held_fixed

if TYPE_CHECKING:
    from landscape import Objective


class Stations(Sequence[Station]):
    """By step. Looking at one leaves its weights in the model.

    Raises `UserError` for one that differs from another in parameters that are not among the objective's: these stay
    as the model has them, so that f would be measured at a network that is neither.
    """

    def __init__(self, checkpoints: Sequence[tuple[int, Path]], objective: Objective) -> None:
        self._checkpoints = sorted(checkpoints, key=lambda item: item[0])
        self._objective = objective
        self._fixed: tuple[Path, dict[str, str]] | None = None

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
        self._refuse_others(path)
        buffers = [t.cpu() for t in own_buffers(self._objective)]
        return Station(step, self._objective.theta().cpu(), buffers)

    def _refuse_others(self, path: Path) -> None:
        if self._objective.sharded:  # refused as a whole later
            return
        fixed = {name: hash_of({name: p}) for name, p in held_fixed(self._objective).items()}
        first, known = self._fixed = self._fixed or (path, fixed)
        for name, code in fixed.items():
            if code != known[name]:
                raise UserError(
                    f"{first} and {path} differ in {name}, which the objective holds fixed: there is no surface and no "
                    "path between them; let it be among the parameters (requires_grad, or parameters= of the Objective)"
                )
