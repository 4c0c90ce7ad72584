"""Processes of this machine, one for each job, so that one that dies takes nothing with it."""

from __future__ import annotations

from contextlib import suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from probes.processes import end, ending, fresh_context, live_with_parent
from probes.sweep.engines.engine import Lost
from probes.sweep.work import Outcome, Work, carry_out


class _Handle(NamedTuple):
    process: BaseProcess
    pipe: connection.Connection


class Processes:
    """The engine `processes`."""

    retries = 2

    def __init__(self) -> None:
        self._context = fresh_context()

    def submit(self, work: Work) -> _Handle:
        """Start a process."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(work, theirs))  # no daemon, which may have no children
        process.start()
        theirs.close()  # so that the end of the process is the end of the file
        return _Handle(process, ours)

    def done(self, handle: _Handle) -> bool:
        """Whether the process has ended."""
        return not handle.process.is_alive()

    def result(self, handle: _Handle) -> Outcome:
        """What the process has said at its end. Raises `Lost`."""
        handle.process.join()
        try:
            return Outcome(*handle.pipe.recv()) if handle.pipe.poll() else self._lost(handle)
        except EOFError:
            return self._lost(handle)
        finally:
            handle.pipe.close()

    def cancel(self, handle: _Handle) -> None:
        """End the process."""
        end(handle.process)

    def close(self) -> None:
        """Nothing is left."""

    def _lost(self, handle: _Handle) -> Outcome:
        raise Lost(ending(handle.process.exitcode))


def _child(work: Work, pipe: connection.Connection) -> None:
    """A process's whole life."""
    live_with_parent()
    outcome = carry_out(work)
    with suppress(BrokenPipeError):
        pipe.send(tuple(outcome))
