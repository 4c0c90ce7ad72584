"""Where a trace stands, and whether it still holds what it held when a checkpoint was saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from probes.monitor.together import Elsewhere
from probes.schedules import Moment
from probes.trace.trace import Trace


def place_of(trace: Trace | Elsewhere, names: Iterable[str]) -> dict[str, Any] | None:
    """Plain numbers: the trace's identity, and for each group its number of rows and the last step.

    None on a rank that does not write it.
    """
    if isinstance(trace, Elsewhere):
        return None
    rows = {}
    for name in names:
        steps = trace[name]["step"]
        rows[name] = [len(steps), int(steps[-1]) if len(steps) else None]
    return {"uuid": trace.uuid, "rows": rows}


def lost_since(place: Mapping[str, Any] | None, trace: Trace) -> dict[str, str]:
    """What the trace lacks of what it held at that place, by group; nothing for another trace."""
    if place is None or place["uuid"] != trace.uuid:
        return {}
    lost = {}
    for name, (rows, last) in place["rows"].items():
        there = trace[name]["step"].tolist() if name in trace else []
        if len(there) < rows:
            end = f"ends at step {there[-1]}" if there else "is empty"
            lost[name] = (
                f"is behind the checkpoint: it {end}, {rows - len(there)} of the {rows} records that it had up to step "
                f"{last} are lost; go on from an earlier checkpoint, or with the gap"
            )
    return lost


def last_moment(trace: Trace, name: str) -> Moment | None:
    """When the probe was measured last, in a resumed trace."""
    if not len(trace[name]):
        return None
    row = trace[name].row()
    return Moment(int(row["step"]), float(row["epoch"]))
