"""How far something is: of a command, as a block that it works in, and of one algorithm, as its callback."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from probes.display.faces import Watcher
from probes.display.state import State
from probes.ranks import is_first
from probes.terminal import err

if TYPE_CHECKING:
    from landscape.spectra import Callback


@contextmanager
def shown(state: State, console: Console) -> Iterator[State]:
    """Inside the block the state is shown: a bar on a terminal, a line in a notebook, a line a minute in a pipe."""
    watcher = Watcher(state, console)
    watcher.start()
    try:
        yield state
    finally:
        watcher.stop()


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Callable[[str, int], Callback]]:
    """Inside the block it is shown how far something of `total` parts is; `show(text, done)` goes on with the next
    part and returns the callback of its algorithm.
    """
    with shown(State(total), console) as state:
        yield state.show
        state.done, state.doing = total, {}


def progress(text: str = "", *, console: Console | None = None) -> ProgressCallback:
    """The callback of an algorithm that shows how far it is, the estimate by now with its error, and the time left.

    On a terminal it is a bar, in a notebook a line below the cell, in a pipe one line a minute. It goes when the
    algorithm lets go of it, or at the end of a `with` block. A call takes about a microsecond, since a thread of its
    own does the showing, and nothing that goes wrong there reaches the algorithm. Of several ranks the first one shows.

    Args:
        text: what is being done.
        console: where to; None for stderr, or the notebook.

    Returns:
        `callback(made, planned, estimate)`, for the algorithms of `landscape`, `measure_once` and `Monitor`.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import eigsh
        >>> from probes import progress
        >>> A = MatrixOperator(torch.diag(torch.tensor([5.0, 2.0, -7.0])))
        >>> eigsh(A, k=1, callback=progress("largest eigenvalue")).converged
        True
    """
    return ProgressCallback(text, console)


class ProgressCallback:
    """What `progress` returns."""

    def __init__(self, text: str, console: Console | None) -> None:
        self._state, self._console = State(1), console
        self._doing = self._state.show(text, 0)
        self._stop: Callable[[], Any] | None = None

    def __call__(self, made: int, planned: int | None, estimate: Any = None) -> None:
        """Takes note, and never stops an algorithm."""
        if made < self._doing.made:  # another algorithm has begun
            self._state.restart()
        self._doing(made, planned, estimate)
        if self._stop is None:
            self._show()

    def __enter__(self) -> ProgressCallback:
        self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Show it no more, until the next call."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _show(self) -> None:
        if not is_first():
            self._stop = lambda: None
            return
        watcher = Watcher(self._state, self._console or err())
        watcher.start()
        # an algorithm does not say that it has ended: it lets go of its callback
        self._stop = weakref.finalize(self, watcher.stop)
