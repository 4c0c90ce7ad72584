"""A trace's lock: one writer at a time, and whether it still lives.

HDF5 itself holds no lock once it has switched to single-writer mode.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from probes.trace.layout import TraceError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class WriterLock:
    """Held for a writer's life; the system drops it when the process dies: a crashed writer leaves no lock.

    It sits on a file of its own beside the trace (`.run.h5.lock`), because the trace itself is replaced by
    another file when a group is added. Raises `TraceError` when a live writer holds it.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise TraceError(f"cannot write {path}: it is a folder")
        if not path.parent.is_dir():
            raise TraceError(f"cannot write {path}: there is no folder {path.parent}")
        self.path = _lock_of(path)
        try:
            self._descriptor = self._acquire(path)
        except TraceError:
            raise
        except OSError as error:
            raise TraceError(f"cannot write {path}: {error.strerror}") from None

    def _acquire(self, trace: Path) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if not _lock_soon(descriptor):
                    owner = os.pread(descriptor, 20, 0).decode(errors="replace")
                    who = "this process" if owner == str(os.getpid()) else f"process {owner}"
                    raise TraceError(f"{trace} is being written by {who}; a trace has one writer at a time")
                # the last writer may have removed the file between our open and our lock
                if self.path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    self._sign(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _sign(self, descriptor: int) -> None:
        """Say who holds the lock."""
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError:  # a full disk
            self.path.unlink()
            raise

    def release(self) -> None:
        """Let others write. Called again, it does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1

    def forget(self) -> None:
        """In a forked child: drop the inherited descriptor, which would keep the lock beyond its owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder_of(path: Path) -> tuple[bool | None, int | None]:
    """Whether a live writer holds the lock of a trace, and its process; None where no locks can be had."""
    try:
        descriptor = os.open(_lock_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, None
    try:
        owner = os.pread(descriptor, 20, 0).decode(errors="replace")
        # a shared lock, and for an instant: other onlookers may have theirs at the same time
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, int(owner) if owner.isdigit() else None
    except OSError as error:
        return (None, None) if error.errno in _NO_LOCKS else (False, None)
    finally:
        os.close(descriptor)
    return False, None


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _lock_soon(descriptor: int) -> bool:
    """Take the lock, also when somebody is just looking whether it is held."""
    for _ in range(5):
        if _try_lock(descriptor):
            return True
        time.sleep(0.005)
    return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # a file system without locks: one writer at a time is then the user's promise
        if error.errno not in _NO_LOCKS:
            raise
    return True
