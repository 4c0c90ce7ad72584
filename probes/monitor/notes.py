"""What a monitor writes about its probes beside their records."""

from __future__ import annotations

from typing import Any

from probes.errors import one_line
from probes.monitor.together import warn
from probes.schedules import Moment
from probes.trace.layout import TraceError


class Notes:
    """Rows in `/events` of a trace, and warnings, once for each text.

    Attributes:
        warned: what was warned of already.
    """

    def __init__(self, trace: Any, on_error: str) -> None:
        self._trace, self._on_error = trace, on_error
        self.warned: set[str] = set()

    def __call__(self, now: Moment, name: str, text: str, *, warning: bool = False) -> None:
        """A row in `/events`, and with `warning` a `ProbeWarning`, once for each text."""
        if warning and text in self.warned:
            return
        self.warned.add(text)
        try:
            self._trace.event(now.step, name, text, epoch=now.epoch)
        except TraceError as error:
            if self._on_error == "raise":
                raise
            warning, text = "trace" not in self.warned, one_line(error)
            self.warned.add("trace")
        if warning:
            warn(self._trace, f"step {now.step}: probe {name!r} {text}", 6)
