"""A Python that has torch imported: `[*python(), "-m", "probes", ...]` in the place of `[sys.executable, ...]`.

Importing is most of what a process of the tests takes. So one process imports, and each that is asked for is a fork of
it, with the words, environment, folder, input and output that it was started with. What is started is a stub, which
passes signals on and ends as the fork does; where the stub is killed, so is the fork. `python(1)` forks another process
than `python()`, so that two ranks have no order of sets in common. Only for what does not ask how a process starts:
options of Python itself are not read, and a new session holds the stub alone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from typing import NamedTuple

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_started: dict[int, tuple[str, object]] = {}


def python(which: int = 0) -> list[str]:
    """The first words of a command; even numbers share a process to fork, and so do odd ones."""
    if not hasattr(os, "pidfd_open"):
        return [sys.executable]
    which %= 2
    if which not in _started:
        _started[which] = _start()
    return [sys.executable, "-I", "-S", __file__, _started[which][0]]


def _start() -> tuple[str, object]:
    """Where the process listens that is forked, and the process; it ends with this one, whose end of a pipe closes."""
    import subprocess
    import tempfile

    from processes import environment

    address = os.path.join(tempfile.mkdtemp(prefix="forked-"), "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return address, process


# -- the stub ----------------------------------------------------------------------------------------------------------


def stub(address: str, words: list[str]) -> None:
    """Asks for a fork that runs `words`, and ends as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is somebody to pass them on to
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(address)
        request = json.dumps({"words": words, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(asked, [len(request).to_bytes(8, "big")], [0, 1, 2])
        asked.sendall(request)
        answers = asked.makefile("r")
        pid = int(answers.readline())
        for number in PASSED_ON:
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        status = int(answers.readline() or 1)
    if status < 0:
        if -status in PASSED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


# -- what is forked ----------------------------------------------------------------------------------------------------


class Fork(NamedTuple):
    """A fork that runs: its process, a file that says when it ends, and the stub that asked for it."""

    pid: int
    ends: int
    asked: socket.socket


class Server:
    """Forks itself for whoever asks."""

    def __init__(self, address: str) -> None:
        import selectors

        self._forks: list[Fork] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen(64)
        self._read, self._selector = selectors.EVENT_READ, selectors.DefaultSelector()
        self._selector.register(self._listening, self._read, self._fork)
        self._selector.register(0, self._read, lambda: sys.exit(self._close(address)))

    def serve(self) -> dict:
        """What is to be run, in a fork; to the end of the tests nothing is returned here."""
        os.write(1, b"ready\n")
        while True:
            for key, _ in self._selector.select():
                request = key.data()
                if request is not None:
                    return request

    def _fork(self) -> dict | None:
        asked, _ = self._listening.accept()
        request, files = _received(asked)
        pid = os.fork()
        if not pid:
            for number, file in enumerate(files):
                os.dup2(file, number)
            self._forget(asked)
        for file in files:
            os.close(file)
        if not pid:
            return request
        asked.sendall(f"{pid}\n".encode())
        fork = Fork(pid, os.pidfd_open(pid), asked)
        self._forks.append(fork)
        self._selector.register(fork.ends, self._read, lambda: self._ended(fork))
        self._selector.register(asked, self._read, lambda: self._left(fork))
        return None

    def _forget(self, asked: socket.socket) -> None:
        """A fork keeps nothing of this open."""
        self._selector.close()
        self._listening.close()
        asked.close()
        for fork in self._forks:
            os.close(fork.ends)
            fork.asked.close()

    def _ended(self, fork: Fork) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(fork.pid, 0)[1])
        self._forks.remove(fork)
        self._selector.unregister(fork.ends)
        os.close(fork.ends)
        with contextlib.suppress(KeyError, ValueError):  # killed by `_left`
            self._selector.unregister(fork.asked)
        with contextlib.suppress(OSError), fork.asked:
            fork.asked.sendall(f"{status}\n".encode())

    def _left(self, fork: Fork) -> None:
        """A stub says nothing more: it was killed."""
        if fork in self._forks:  # else both ended at once
            self._selector.unregister(fork.asked)
            os.kill(fork.pid, signal.SIGKILL)

    def _close(self, address: str) -> int:
        for fork in self._forks:
            os.kill(fork.pid, signal.SIGKILL)
        os.unlink(address)
        os.rmdir(os.path.dirname(address))
        return 0


def _received(asked: socket.socket) -> tuple[dict, list[int]]:
    size, files, _, _ = socket.recv_fds(asked, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += asked.recv(1 << 16)
    return json.loads(text), files


# -- a fork ------------------------------------------------------------------------------------------------------------


def become(request: dict, installed: list[str]) -> None:
    """Runs what is asked for as Python would, but for what is imported already."""
    import random
    import runpy
    import types

    import numpy as np

    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    random.seed()
    np.random.seed()
    first, *rest = request["words"]
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    if first == "-m":
        sys.argv = rest
        sys.path.insert(0, request["folder"])
        sys.modules.pop(rest[0], None)  # runpy warns of a module that it runs a second time
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        here = sys.modules["__main__"]  # whose names this function needs
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
        del here
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name="__main__")


def ended(request: dict, installed: list[str]) -> int:
    """The status with which `become` ends; taking down all that is imported would take longer than all the rest."""
    import atexit
    import threading
    import traceback

    status, interrupted = 0, False
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        become(request, installed)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        status, interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status & 0xFF


def _import() -> None:
    """What the processes of tests use."""
    import importlib

    for name in ("torch.distributed.fsdp", "landscape", "landscape.spectra", "solvers", "probes", "probes.cli"):
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):  # some are imported when they are first named
            getattr(module, public)
    gc.collect()
    gc.freeze()  # collections leave alone what all forks share


def main() -> None:
    if len(sys.argv) > 2:
        stub(sys.argv[1], sys.argv[2:])
    own = {os.path.dirname(os.path.abspath(__file__)), *os.environ["PYTHONPATH"].split(os.pathsep)}
    installed = [path for path in sys.path if path not in own]
    _import()
    os._exit(ended(Server(sys.argv[1]).serve(), installed))


if __name__ == "__main__":
    main()
