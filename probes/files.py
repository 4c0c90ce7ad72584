"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from probes.errors import UserError, one_line, some


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it takes the place of `path` when the block ends, and is gone if it fails.

    Raises `UserError` when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {one_line(error)}") from None
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # one without is not the system's: a trace that cannot be read
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        raise


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise `UserError` when a file is there that nobody said may be replaced."""
    folders = [str(path) for path in paths if path.is_dir()]
    if folders:
        raise UserError(f"{some(folders)} is a folder: name a file with -o")
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        verb = "exists" if len(there) == 1 else "exist"
        raise UserError(f"{some(there)} {verb}: replace with --overwrite, or choose another -o")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
