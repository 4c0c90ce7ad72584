"""Whether a trace can be written where it is asked for."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from probes.errors import UserError

# A trace of a few probes is some ten kilobytes; with less room than this its first records may not fit.
_ROOM = 1 << 20


def check_output(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raise `UserError` when a trace cannot be written there, before any work is done for it."""
    folder = path.parent
    if path.is_dir():
        raise UserError(f"the output {path} is a folder: name a file in it, such as {path / 'probe.h5'}")
    if not folder.is_dir():
        raise UserError(f"the output's folder {folder} does not exist: create it or choose another with -o")
    if path.exists() and not (resume or overwrite):
        raise UserError(f"{path} exists: replace it with --overwrite, add to it with --resume, or choose another -o")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise UserError(f"{folder.resolve()} cannot be written ({error.strerror}): choose another -o") from error
    if shutil.disk_usage(folder).free < _ROOM:
        raise UserError(f"the disk of {folder.resolve()} is full: free some space or choose another -o")
