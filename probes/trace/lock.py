"""A trace's lock: one writer at a time, and whether it still lives.

HDF5 itself holds no lock once it has switched to single-writer mode. The lock is the system's (flock, which NFS passes
on to other hosts) and goes with the process that has it. The file says who that is: process, host, and the namespace
that gives processes their numbers. What it says decides where the system's lock cannot: where a child of a dead writer
has inherited it, and on file systems that know no locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path
from typing import NamedTuple

from probes.trace.layout import TraceError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Owner(NamedTuple):
    """Who signed a lock: nothing is known of a place that an older version left out, or that could not be read."""

    process: int | None = None
    host: str = ""
    namespace: str = ""

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        try:
            namespace = str(os.stat("/proc/self/ns/pid").st_ino)  # containers may share a host's name
        except OSError:
            namespace = "-"
        return cls(os.getpid(), socket.gethostname().replace(" ", "-") or "-", namespace)

    @classmethod
    def read(cls, descriptor: int) -> Owner:
        """Whoever signed an open lock."""
        process, *place = os.pread(descriptor, 400, 0).decode(errors="replace").split(" ")
        return cls(int(process) if process.isdigit() else None, *(place if len(place) == 2 else ()))

    @property
    def elsewhere(self) -> bool:
        """On another host or in another container, where its process cannot be looked up."""
        return bool(self.host) and self[1:] != Owner.here()[1:]

    @property
    def dead(self) -> bool:
        """Whether the process is surely gone: it was here, and is no more."""
        if self.process is None or not self.host or self.elsewhere:
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # somebody else's
            return False
        return False

    def __str__(self) -> str:
        if self.process == os.getpid() and not self.elsewhere:
            return "this process"
        number = "another process" if self.process is None else f"process {self.process}"
        return f"{number} on {self.host}" if self.elsewhere else number


class WriterLock:
    """Held for a writer's life; the system drops it when the process dies: a crashed writer leaves no lock.

    It sits on a file of its own beside the trace (`.run.h5.lock`), because the trace itself is replaced by
    another file when a group is added. Raises `TraceError` when a live writer holds it, or when nobody can tell.
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
        _HELD.add(self)

    def _acquire(self, trace: Path) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                locked, owner = _lock_soon(descriptor), _owner_of(descriptor)
                if locked is False and not owner.dead:
                    raise TraceError(f"{trace} is being written by {owner}; a trace has one writer at a time")
                if locked is False:
                    self._supersede(descriptor)
                if locked is None and not owner.dead and owner.host and owner != Owner.here():
                    raise TraceError(
                        f"{trace} was being written by {owner}, and this file system has no locks to tell whether it "
                        f"still is: when that process is gone, remove {self.path}"
                    )
                # the last writer may have removed the file between our open and our lock
                if self.path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    self._sign(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _supersede(self, descriptor: int) -> None:
        """Away with the file of a dead writer whose child keeps the lock: the next one is nobody's."""
        if self.path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
            self.path.unlink(missing_ok=True)

    def _sign(self, descriptor: int) -> None:
        """Say who holds the lock."""
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, " ".join(map(str, Owner.here())).encode(), 0)
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


def holder_of(path: Path) -> tuple[bool | None, Owner | None]:
    """Whether a live writer holds the lock of a trace, and who; None where no locks can be had and nobody can tell."""
    try:
        descriptor = os.open(_lock_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, None
    try:
        owner = Owner.read(descriptor)
        # a shared lock, and for an instant: other onlookers may have theirs at the same time
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner_of(descriptor)
        return (False, None) if owner.dead else (True, owner)
    except OSError as error:
        return (None, None) if error.errno in _NO_LOCKS and not owner.dead else (False, None)
    finally:
        os.close(descriptor)
    return False, None


def _owner_of(descriptor: int) -> Owner:
    """Who holds the lock: a writer has it for an instant before it has signed over the name of a dead one."""
    owner = Owner.read(descriptor)
    for _ in range(10):
        if not owner.dead:
            break
        time.sleep(0.01)
        owner = Owner.read(descriptor)
    return owner


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _lock_soon(descriptor: int) -> bool | None:
    """Take the lock, also when somebody is just looking whether it is held; None where there are no locks."""
    for _ in range(5):
        if (locked := _try_lock(descriptor)) is not False:
            return locked
        time.sleep(0.005)
    return False


def _try_lock(descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_HELD):
        lock.forget()


os.register_at_fork(after_in_child=_after_fork)
