"""What a writer of traces asks of the operating system: room on the disk, and a clean exit.

When a write fails for lack of space, HDF5 goes on failing at every close and takes the process down at its exit.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
from pathlib import Path

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


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
