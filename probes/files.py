"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.errors import UserError, first_few


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to: when the block ends it goes to the disk and takes the place of `path`.

    It has the permissions that any new file gets, and is gone when the block fails. Raises `UserError` when the
    folder cannot be made or written.
    """
    partial = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=False)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # one without is not the system's: a trace that cannot be read
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        raise


@contextmanager
def atomic_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `path` to fill: when the block ends it takes the place of `path`; gone when it fails.

    Raises `UserError` where `path` is there and may not be replaced, and when the folder cannot be made.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists: replace with --overwrite, or choose another -o")
    partial = path.with_name(f".{secrets.token_hex(6)}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        raise


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise `UserError` when a file is there that nobody said may be replaced."""
    folders = [str(path) for path in paths if path.is_dir()]
    if folders:
        raise UserError(f"{first_few(folders)} is a folder: name a file with -o")
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        verb = "exists" if len(there) == 1 else "exist"
        raise UserError(f"{first_few(there)} {verb}: replace with --overwrite, or choose another -o")
