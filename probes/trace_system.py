"""What a writer of traces asks of the operating system: one writer per file, room on the disk, a clean exit.

HDF5 alone gives none of the three: after the switch to single-writer mode it holds no lock, and when a write
fails for lack of space it goes on failing at every close and takes the process down at exit.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import time
from pathlib import Path

from probes.trace_file import TraceError

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
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
                if not _locked_soon(descriptor):
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


def _locked_soon(descriptor: int) -> bool:
    """Take the lock, also when somebody is just looking whether it is held."""
    for _ in range(5):
        if _locked(descriptor):
            return True
        time.sleep(0.005)
    return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # a file system without locks: one writer at a time is then the user's promise
        if error.errno not in _NO_LOCKS:
            raise
    return True


def make_room(descriptor: int, size: int) -> None:
    """Make sure that the next `size` bytes beyond the end of an open file can be written.

    The blocks are reserved, where the file system can, so that another process cannot take them in between.
    Raises `OSError` (ENOSPC, EDQUOT, EFBIG) when there is no room; the file is as it was.
    """
    end = os.fstat(descriptor).st_size
    _check_limit(end + size)
    fallocate = getattr(_libc(), "fallocate", None)
    if fallocate is not None:
        if fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(end), ctypes.c_int64(size)) == 0:
            return
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise OSError(code, os.strerror(code))
    free = os.fstatvfs(descriptor)
    if free.f_bavail * free.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_room(folder: Path, size: int) -> None:
    """Raise `OSError` when a new file of `size` bytes does not fit into `folder`."""
    _check_limit(size)
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check_limit(size: int) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and size > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def trim(path: Path) -> None:
    """Give back what `make_room` reserved beyond the end, and push the file to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Push a rename to the disk, where folders can be synchronised."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disconnect(descriptor: int) -> None:
    """Point an open descriptor at /dev/null.

    The library behind it then succeeds in whatever it still wants to write, and the file on the disk stays as
    the last good flush left it. Without this HDF5 retries a failed write at exit and crashes.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)
