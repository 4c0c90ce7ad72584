"""What a state looks like: a bar on a terminal, a line that is written anew in a notebook, a line a minute in a pipe.

A thread of its own looks at the state, so that what is measured waits for nobody, and time passes on the display while
one product takes minutes.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Any, ClassVar

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from probes.display.state import State

_FAILURES = (Exception, SystemExit)  # rich exits where a pipe is broken


class Face:
    """One way to show a state; `every` is seconds from one look to the next."""

    every: ClassVar[float]

    def __init__(self, state: State) -> None:
        self.state = state

    def open(self) -> None:
        """Show it for the first time."""

    def refresh(self) -> None:
        """Show it anew."""

    def close(self) -> None:
        """Show its end."""


class Terminal(Face):
    """A row for the whole, and one for each part where several are under way. It is gone at the end."""

    every = 0.25

    def __init__(self, state: State, console: Console) -> None:
        super().__init__(state)
        # a notebook's `!command` is a terminal that knows no way up
        self.rows = 1 if "JPY_PARENT_PID" in os.environ else max(1, console.height - 2)
        self._live = Live(
            get_renderable=self.render,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what is printed into a file stays there
        )

    @override
    def open(self) -> None:
        self._live.start(refresh=True)

    @override
    def refresh(self) -> None:
        self._live.refresh()

    @override
    def close(self) -> None:
        self._live.stop()

    def render(self) -> Table:
        """The rows."""
        state = self.state
        table = Table.grid(padding=(0, 1), expand=False)
        for last in (False, False, False, False, True):  # that is cut where the terminal is narrow
            table.add_column(no_wrap=not last)
        table.add_row(
            Text(state.text),
            ProgressBar(total=1.0, completed=state.share, width=16),
            Text(state.count() if state.total > 1 else ""),
            Text(state.times(), style="cyan"),
            Text(", ".join(state.details()), no_wrap=True, overflow="ellipsis"),
        )
        if len(state.doing) > 1 or state.noun:
            for name, one in list(state.doing.items())[: self.rows - 1]:
                bar = ProgressBar(total=1.0, completed=one.share, width=16)
                table.add_row(Text(f"  {name}"), bar, Text(f"{one.made} of {one.planned}"))
        return table


class Notebook(Face):
    """A line in the output of the cell. rich's own display asks for ipywidgets; this is in every notebook."""

    every = 1.0

    @override
    def open(self) -> None:
        from IPython.display import display

        self._handle: Any = display({"text/plain": self.state.line()}, raw=True, display_id=True)

    @override
    def refresh(self) -> None:
        self._handle.update({"text/plain": self.state.line()}, raw=True)

    @override
    def close(self) -> None:
        self._handle.update({"text/plain": self.state.ended()}, raw=True)


class Pipe(Face):
    """A line a minute."""

    every = 60.0

    def __init__(self, state: State, console: Console) -> None:
        super().__init__(state)
        self.console = console

    @override
    def refresh(self) -> None:
        self.console.print(self.state.line(), markup=False, soft_wrap=True)


class Watcher:
    """A thread that looks at a state now and then and shows it. Nothing that goes wrong with it reaches anybody."""

    def __init__(self, state: State, console: Console) -> None:
        self._face = _face(state, console)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="progress")

    def start(self) -> None:
        """Begin to show it."""
        with suppress(*_FAILURES):
            self._face.open()
        with suppress(*_FAILURES):
            self._thread.start()

    def stop(self) -> None:
        """Show nothing any more."""
        self._end.set()
        with suppress(*_FAILURES):
            self._thread.join(1.0)
        with suppress(*_FAILURES):
            self._face.close()

    def _look(self) -> None:
        failed = _failed()
        while not self._end.wait(self._face.every):
            with suppress(*_FAILURES):
                if _failed() != failed:  # a prompt is back, though the failure still holds what was shown
                    self._face.close()
                    return
                self._face.refresh()


def _face(state: State, console: Console) -> Face:
    if console.is_jupyter:
        return Notebook(state)
    drawn = console.is_terminal and not console.is_dumb_terminal
    return Terminal(state, console) if drawn else Pipe(state, console)


def _failed() -> int:
    """The last failure that has ended a line typed at a prompt."""
    return id(getattr(sys, "last_traceback", None))
