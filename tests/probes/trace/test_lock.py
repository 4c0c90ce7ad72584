"""Who holds a lock: this host or another, alive or dead, with the system's locks and without them."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probes import Trace, TraceError
from probes.trace.lock import Owner, WriterLock, holder_of
from probes.trace.state import state_of


def lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def sign(path: Path, text: object) -> None:
    lock_file(path).write_text(str(text))


def signature(**changed: Any) -> str:
    return " ".join(map(str, Owner.here()._replace(**changed)))


def test_a_lock_says_which_process_on_which_host(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with Trace.create(path):
        process, host, namespace = lock_file(path).read_text().split()
        assert int(process) == os.getpid()
        assert host
        assert namespace
        assert holder_of(path) == (True, Owner.here())
        assert str(Owner.here()) == "this process"
        with pytest.raises(TraceError, match="written by this process; a trace has one writer"):
            Trace.resume(path)


@pytest.mark.parametrize("text", ["4711", signature(process=4711, host="another"), "", "not a number", "1 2 3 4 5"])
def test_a_lock_that_nobody_holds_is_taken_whatever_it_says(tmp_path: Path, text: str) -> None:
    """The system drops a dead writer's lock, also on another host; older versions wrote the process alone."""
    path = tmp_path / "a.h5"
    Trace.create(path).close()
    sign(path, text)
    assert holder_of(path) == (False, None)
    with Trace.resume(path):
        assert state_of(path) == ("live", Owner.here())


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    Trace.create(path).close()
    for text, said in (
        ("4711", "process 4711;"),
        (signature(process=4711, host="node7"), "process 4711 on node7;"),
        (signature(process=4711, namespace="1"), f"process 4711 on {Owner.here().host};"),  # another container
        ("", "another process;"),
    ):
        sign(path, text)
        with lock_file(path).open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert holder_of(path)[0]
            with pytest.raises(TraceError, match=f"is being written by {said}"):
                Trace.resume(path)


def test_a_lock_that_outlives_its_writer_here_is_stale(tmp_path: Path) -> None:
    """A child that was started without Python's help keeps the descriptor, and with it the lock."""
    path = tmp_path / "a.h5"
    Trace.create(path).close()
    sign(path, signature(process=dead_process()))
    with lock_file(path).open("r+") as child:
        fcntl.flock(child, fcntl.LOCK_EX)
        assert holder_of(path) == (False, None)
        with Trace.resume(path):
            assert state_of(path) == ("live", Owner.here())
            with pytest.raises(TraceError, match="this process"):
                WriterLock(path)


def test_where_there_are_no_locks_the_signature_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    path = tmp_path / "a.h5"
    Trace.create(path).close()
    monkeypatch.setattr("probes.trace.lock.fcntl.flock", none)
    for text in ("4711", "", signature(process=dead_process())):
        sign(path, text)
        Trace.resume(path).close()
        assert not lock_file(path).exists()
    for text, who in (
        (signature(process=4711, host="node7"), "process 4711 on node7"),
        (signature(process=os.getppid()), f"process {os.getppid()}"),
    ):
        sign(path, text)
        assert holder_of(path) == (None, None)
        with pytest.raises(TraceError, match=f"was being written by {who}, and this file .* remove .*a.h5.lock"):
            Trace.resume(path)
        assert lock_file(path).read_text() == text
