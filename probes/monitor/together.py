"""A monitor on several ranks: all of them measure together, and the first one decides and writes.

Where nothing is asked for, nothing is sent: whether a probe may be due is told from steps and epochs, which all ranks
know, and only then the first one says which are.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from probes.errors import ProbeWarning
from probes.ranks import decided
from probes.schedules import Moment, Schedule, When, as_schedule

if TYPE_CHECKING:
    from landscape.ranks import Ranks
    from probes.trace.layout import Field
    from probes.trace.trace import Trace


class Elsewhere:
    """What the ranks after the first have for a trace: they know its seed, and what they record is written there.

    Attributes:
        seed: of the first rank's trace.
    """

    broken = False
    uuid = ""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.closed = False

    def close(self) -> None:
        """Nothing is recorded from now on."""
        self.closed = True

    def declared(self, name: str) -> dict[str, Field] | None:
        """Nothing is known of it here."""
        return None

    def _nothing(self, *args: Any, **options: Any) -> None:
        """The first rank does it."""

    declare = record = event = flush = before_close = _nothing


def ranks_of(objective: Any) -> Ranks:
    """Those that measure an objective; this process alone for a stand-in that knows none."""
    from landscape.ranks import Ranks

    found = getattr(objective, "ranks", None)
    return found if isinstance(found, Ranks) else Ranks()


def trace_on(ranks: Ranks, trace: Trace | None) -> Any:
    """The trace on the first rank, its stand-in on the others. Raises `ValueError` where the first one has none."""

    def seed() -> int:
        if trace is None:
            where = "rank 0, which writes for all" if ranks.several else "a monitor"
            raise ValueError(f"there is no trace: {where} needs one that is open for writing")
        return trace.seed

    shared = decided(ranks, seed)
    return trace if ranks.rank == 0 else Elsewhere(shared)


def batch_on(ranks: Ranks, batch: Any) -> Any:
    """The batch of a training loop; an empty one on a rank that has none where others have."""
    return [] if ranks.any(batch is not None) and batch is None else batch


def asks(schedule: Schedule, now: Moment, before: Moment | None) -> bool:
    """Whether a probe may be due, as far as steps and epochs tell: the same on all ranks.

    A `When` is asked at its own times, whatever it answers: the loss that it looks at is another one on each rank.
    """
    try:
        return as_schedule(schedule.every if isinstance(schedule, When) else schedule).due(now, before)
    except Exception:  # whatever a schedule of the user's own raises: the first rank will say so
        return True


def warn(trace: Any, text: str, depth: int) -> None:
    """A `ProbeWarning` of the first rank, which points at the caller `depth` frames up."""
    if not isinstance(trace, Elsewhere):
        warnings.warn(text, ProbeWarning, stacklevel=depth)
