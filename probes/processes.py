"""Processes of this machine that work for this one and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from typing import Any


def fresh_context() -> Any:
    """Processes forked from a server that has imported torch and started no thread; spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch's optimizers import the compiler, which alone takes as long as many a job
    context.set_forkserver_preload(["torch", "torch._dynamo", "landscape", "probes", "sklearn.datasets"])
    return context


def live_with_parent() -> None:
    """For a child: the parent alone answers Ctrl-C, and when it is gone, so is the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def ending(code: int | None) -> str:
    """How a process has ended, in words."""
    code = code or 0
    return f"the process ended with {'signal' if code < 0 else 'status'} {abs(code)}"
