"""How far a sweep is: bars on a terminal, a line now and then where there is none."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from probes.sweep.work import JobResult

SECONDS = 30.0  # from one line to the next


class Bars:
    """A listener of `Runner.run`: a bar for all jobs and one for each that runs; in a pipe, lines if `lines`.

    Args:
        console: where to; None: nowhere.
        jobs: how many.
        lines: whether somebody reads what goes into a pipe.
    """

    def __init__(self, console: Console | None, jobs: int, *, lines: bool = False) -> None:
        shown = console is not None and console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}")
        self.view = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not shown)
        self.all = self.view.add_task("jobs", total=jobs)
        self.running: dict[str, TaskID] = {}
        self.console = console if lines and not shown else None
        self.jobs, self.ended, self.made = jobs, 0, 0
        self.start = time.monotonic()
        self._next = self.start + SECONDS

    def __enter__(self) -> Bars:
        self.view.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.view.stop()

    def tell(self, name: str, done: int, planned: int, result: JobResult | None = None) -> None:
        """How far a job is, and what came of it."""
        if result is not None:
            self.view.advance(self.all)
            if name in self.running:
                self.view.remove_task(self.running.pop(name))
            self.ended += 1
            self.made += not result.resumed
        else:
            if name not in self.running:
                self.running[name] = self.view.add_task(name, total=planned)
            self.view.update(self.running[name], completed=done, total=planned)
        if self.console is not None and time.monotonic() >= self._next:
            self._say(self.console)

    def _say(self, console: Console) -> None:
        now = time.monotonic()
        self._next = now + SECONDS
        left = (now - self.start) / self.made * (self.jobs - self.ended) if self.made else 0.0
        more = f", about {hours(left)} to go" if left else ""
        console.print(f"{self.ended} of {self.jobs} runs, {len(self.running)} at work{more}", soft_wrap=True)


def hours(seconds: float) -> str:
    """A time as it is said: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
