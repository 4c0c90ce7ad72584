"""Whether a trace can be written where it is asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from probes.checkpoints.snapshots import address_of
from probes.errors import UserError

# A trace of a few probes is some ten kilobytes; with less room than this its first records may not fit.
_ROOM = 1 << 20


def check_output(
    path: Path, *, resume: bool = False, overwrite: bool = False, checkpoints: Iterable[Path] = ()
) -> None:
    """Raise `UserError` when a trace cannot be written there, before any work is done for it.

    `checkpoints`: what is measured, which is not to be written over.
    """
    folder = path.parent
    for checkpoint in checkpoints:
        address = address_of(checkpoint)
        if path.resolve() == (checkpoint if address is None else address.trace).resolve():
            raise UserError(f"the output {path} is what is to be measured: choose another -o")
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
