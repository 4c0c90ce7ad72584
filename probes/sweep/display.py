"""How far a sweep is."""

from __future__ import annotations

from contextlib import ExitStack

from rich.console import Console

from probes.display.progress import shown
from probes.display.state import State
from probes.sweep.work import JobResult


class Bars:
    """A listener of `Runner.run`: a bar for all jobs and one for each that runs; in a pipe, a line a minute.

    Args:
        console: where to; None: nowhere.
        jobs: how many.
        noun: what they are called.
    """

    def __init__(self, console: Console | None, jobs: int, noun: str = "runs") -> None:
        self.state, self.console = State(jobs, noun=noun), console
        self._stack = ExitStack()

    def __enter__(self) -> Bars:
        if self.console is not None:
            self._stack.enter_context(shown(self.state, self.console))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tell(self, name: str, done: int, planned: int, result: JobResult | None = None) -> None:
        """How far a job is, and what came of it."""
        state = self.state
        if result is None:
            state.doing.setdefault(name, state.begin())(done, planned)
        else:
            state.doing.pop(name, None)
            state.done += 1
            state.earlier += result.resumed
