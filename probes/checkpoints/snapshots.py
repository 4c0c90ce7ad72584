"""Traces as checkpoints: `run.h5` stands for all of its snapshots, `run.h5@300` for that of step 300.

`run.h5@last` is the last one, and `run.h5@average:300` one of the probe that is named `average`, for traces with
snapshots under several names. A trace that is being written, or whose writer has crashed, is taken as far as it is
whole. A file whose own name has an @ in it is that file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np

from probes.errors import UserError, first_few, one_line
from probes.instruments.registry import PROBES
from probes.trace.layout import TraceError
from probes.trace.records import Records
from probes.trace.trace import Trace

if TYPE_CHECKING:
    from torch import Tensor

_LAST = "last"
_FEW = 8
_KIND = PROBES["snapshots"]


class Address(NamedTuple):
    """What a path says: the trace, and in it the name of the probe and the step; "" where it says none."""

    trace: Path
    name: str
    step: str


def address_of(path: str | Path) -> Address | None:
    """The address that a path is; None for a path that is no trace."""
    path = Path(path)
    if path.exists():
        return Address(path, "", "") if path.is_file() and h5py.is_hdf5(path) else None
    before, _, behind = str(path).rpartition("@")
    if not before or not Path(before).is_file() or not h5py.is_hdf5(before):
        return None
    name, _, step = behind.rpartition(":")
    return Address(Path(before), name, step)


def each_of(path: str | Path) -> list[tuple[int | None, Path]]:
    """`(step, path)` of what a path stands for: of a trace the snapshots, of all else itself, with None.

    Raises `UserError` for a trace without snapshots, or without the one that is asked for.
    """
    address = address_of(path)
    if address is None:
        return [(None, Path(path))]
    if address.step:
        steps = [step_of(address)]
    else:
        with _snapshots(address) as records:
            steps = np.unique(records["step"]).tolist()
    prefix = f"{address.trace}@{address.name}{':' * bool(address.name)}"
    return [(step, Path(f"{prefix}{step}")) for step in steps]


def read_snapshot(path: str | Path) -> dict[str, Tensor]:
    """The state dict of one snapshot, bit for bit as the network had it. Raises `UserError` where it cannot be read."""
    from probes.instruments.packing import unpacked

    address = address_of(path)
    if address is None:
        raise UserError(f"there is no trace {path}")
    step = step_of(address)
    with _snapshots(address) as records:
        row = int(np.flatnonzero(records["step"] == step)[-1])
        fields = {name: field for name, field in records.fields.items() if field.parts}
        return unpacked({name: v[0] for name, v in records.read(row, row + 1, only=fields).items()}, fields)


def step_of(address: Address) -> int:
    """The step that is asked for. Raises `UserError` where there is no such snapshot."""
    trace, _, asked = address
    with _snapshots(address) as records:
        steps = np.unique(records["step"]).tolist()
    if asked == _LAST:
        return int(steps[-1])
    few = ", ".join(map(str, steps))
    there = f"it has {few}" if len(steps) <= _FEW else f"it has {len(steps)}, from {steps[0]} to {steps[-1]}"
    if not asked:
        raise UserError(f"{trace} is a trace of snapshots, {there}: name one, {trace}@{steps[-1]}")
    if not asked.isdecimal():
        raise UserError(f"{trace}@{asked}: behind the @ stands a step, or {_LAST}; {there}")
    if int(asked) not in steps:
        raise UserError(f"{trace} has no snapshot of step {asked}: {there}")
    return int(asked)


@contextmanager
def _snapshots(address: Address) -> Iterator[Records]:
    """The records of the snapshots. Raises `UserError` where there are none, and for a file that is damaged."""
    trace, name, _ = address
    try:
        opened = Trace.open(trace)
        found = {one: opened[one] for one in opened if (opened[one].settings or {}).get("probe") == _KIND.class_name}
        if not found:
            raise UserError(
                f"{trace} is a trace without snapshots: measure probes.Snapshots() in the training loop, or give saved "
                "checkpoints"
            )
        if name and name not in found:
            raise UserError(f"{trace} has no snapshots under {name!r}: it has {first_few(map(repr, found))}")
        chosen = name or ("snapshots" if "snapshots" in found or len(found) > 1 else next(iter(found)))
        if chosen not in found:
            names = first_few(map(repr, found))
            raise UserError(f"{trace} has snapshots under {names}: name one, {trace}@{min(found)}:{_LAST}")
        if not len(found[chosen]):
            raise UserError(f"{trace} holds no snapshot yet")
        yield found[chosen]
    except TraceError as error:
        raise UserError(one_line(error)) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{trace} cannot be read: {one_line(error, limit=200)}") from error
