"""How far a command is: a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from landscape.spectra import Callback


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Callable[[str, int], Callback]]:
    """A bar on a terminal, nothing in a pipe; `show(text, done)` returns the next measurement's callback."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[products]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total, products="")

    def show(text: str, done: int) -> Callback:
        bar.update(task, description=text, completed=done, products="")

        def callback(matvecs: int, planned: int | None, estimate: Any) -> None:
            limit = f" of {planned}" if planned else ""
            bar.update(task, products=f"{matvecs}{limit} products")

        return callback

    with bar:
        yield show
