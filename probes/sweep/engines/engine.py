"""What the runner asks of an engine."""

from __future__ import annotations

from typing import Any, Protocol

from probes.sweep.work import Outcome, Work


class Lost(Exception):
    """The worker died, or its machine did, before it could say how the work ended."""


class Engine(Protocol):
    """Four verbs; what a handle is, is the engine's affair. The runner polls.

    Attributes:
        retries: how often the runner submits again what was lost.
    """

    retries: int

    def submit(self, work: Work) -> Any:
        """Have the work done by `carry_out`; a handle of it."""

    def done(self, handle: Any) -> bool:
        """Whether it has ended, well or not."""

    def result(self, handle: Any) -> Outcome:
        """How it ended. Raises `Lost`."""

    def cancel(self, handle: Any) -> None:
        """End it, if it has not ended."""

    def close(self) -> None:
        """Let go of what the engine has started."""
