"""What a monitor measures, in mirrors beside the trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from probes.errors import one_line
from probes.mirrors.mirror import as_mirror, show_record
from probes.monitor.measure import Outcome
from probes.monitor.notes import Notes
from probes.schedules import Moment


class Reflection:
    """The mirrors of a monitor. One that fails is said once and left alone from then on: the trace has the numbers.

    Raises `TypeError` for what is no mirror.
    """

    def __init__(self, mirrors: Iterable[Any], trace: Any, notes: Notes) -> None:
        self._mirrors = [as_mirror(thing) for thing in mirrors]
        self._trace, self._notes = trace, notes

    def show(self, outcomes: Mapping[str, Outcome], now: Moment) -> None:
        """The records of one step."""
        for name, outcome in outcomes.items():
            fields = self._trace.declared(name)
            if outcome.values is None or fields is None:  # it failed, or another rank writes
                continue
            for mirror in list(self._mirrors):
                try:
                    show_record(mirror, name, now.step, outcome.values, fields)
                except Exception as error:  # whatever another program raises
                    self._mirrors.remove(mirror)
                    told = f"is not in {type(mirror).__name__} from here on: {type(error).__name__}: {one_line(error)}"
                    self._notes(now, name, told, warning=True)
