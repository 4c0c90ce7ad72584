"""Processes of this machine that work for this one and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

_GRACE = 10.0  # seconds, for a child that is told to end


def fresh_context() -> Any:
    """Processes forked from a server that has imported torch and started no thread; spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch's optimizers import the compiler, which alone takes as long as many a job
    context.set_forkserver_preload(["torch", "torch._dynamo", "landscape", "probes", "sklearn.datasets"])
    return context


def live_with_parent() -> None:
    """For a child: the parent alone answers Ctrl-C, and when it is gone, so is the child, with processes of its own.

    It leads a group, to which those of its own belong (workers of a DataLoader), and starts them as any process does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    # not the process whose child this is: a server of forks lives as long as they do
    parent.join()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def end(process: BaseProcess) -> None:
    """For the parent: end a child that lives with it, and all that the child has started."""
    process.terminate()  # which may not lead a group yet
    _tell_group(process, signal.SIGTERM)
    process.join(_GRACE)
    process.kill()
    _tell_group(process, signal.SIGKILL)
    process.join()


def _tell_group(process: BaseProcess, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.ident or 0, number)


def ending(code: int | None) -> str:
    """How a process has ended, in words."""
    code = code or 0
    return f"the process ended with {'signal' if code < 0 else 'status'} {abs(code)}"
