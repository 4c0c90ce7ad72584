"""Whether somebody still writes a trace: a live writer, a clean close and a crash look different from outside.

The writer holds a lock for its life, which the system drops when the process dies; HDF5 marks the file as open
for writing and takes the mark away when it is closed. Marked and without a lock: the writer has crashed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import h5py

from probes.trace.layout import TraceError, offsets_name
from probes.trace.lock import Owner, holder_of
from probes.trace.reader import count_rows, superblock, tables


class State(NamedTuple):
    """What became of the writer: "live" (with its process and host, where known), "closed" or "crashed"."""

    kind: Literal["live", "closed", "crashed"]
    owner: Owner | None = None


def state_of(path: Path) -> State:
    """The state of a trace at this moment. Raises `TraceError` when there is no such file."""
    held, owner = holder_of(path)  # first: a writer closes the file before it drops the lock
    if held:
        return State("live", owner)
    try:
        marked = superblock(path).open_for_writing
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from None
    if not marked:
        return State("closed")
    # without locks on this file system nobody can tell: then the mark is all there is
    return State("crashed" if held is False else "live")


def check_whole(file: h5py.File, path: Path) -> None:
    """Raise `TraceError` when a crashed writer's file was cut short afterwards.

    HDF5 reads zeros there without a word, and the end that its header gives was written before the rows were.
    The chunks of a dataset follow each other in the file, so it is enough to look where the last ones lie.
    """
    try:
        ends = {}
        for group in tables(file):
            ends[group.name] = max(_last_chunk_end(group[name], rows) for name, rows in _lengths(group))
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        # an index of the chunks that lies beyond the end is zeros, which its checksum does not fit
        raise TraceError(f"{path} is truncated or damaged: {' '.join(str(error).split())[:200]}") from None
    size = path.stat().st_size
    beyond = [name.rsplit("/", 1)[-1] for name, end in ends.items() if end > size]
    if beyond:
        raise TraceError(f"{path} is truncated or damaged: records of {', '.join(beyond)} lie beyond its end")


def _lengths(group: h5py.Group) -> list[tuple[str, int]]:
    """The datasets of a table, and how many entries of each its rows have."""
    rows = count_rows(group)
    lengths = []
    for name in group:
        if offsets_name(name) in group:
            lengths.append((name, int(group[offsets_name(name)][rows])))
        else:
            lengths.append((name, rows + 1 if name.endswith(".offsets") else rows))
    return lengths


def _last_chunk_end(dataset: h5py.Dataset, rows: int) -> int:
    if rows == 0:
        return 0
    length = dataset.chunks[0]
    corner = ((rows - 1) // length * length, *(0 for _ in dataset.shape[1:]))
    chunk = dataset.id.get_chunk_info_by_coord(corner)
    if chunk.byte_offset is None:
        raise ValueError(f"{dataset.name} has no data for its last row")
    return int(chunk.byte_offset + chunk.size)
