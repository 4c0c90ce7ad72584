"""Where the files of a data set are looked for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from probes.errors import UserError
from runs.engine.options import FOLDER

TORCHVISION = (Path("data"), Path.home() / "data")
"""The folders that are given to torchvision's classes as a rule, as `root`."""


def files(
    title: str, names: Sequence[str], *, inside: Sequence[str] = (), also: Sequence[Path | None] = (), get: str
) -> list[Path]:
    """The files of a data set, from the first folder that has all of them.

    Args:
        title: of the data set.
        names: of the files; each may be gzipped (`.gz`).
        inside: folders that they may lie in within the folder of LANDSCAPE_DATA, and within torchvision's.
        also: folders of packages; None for one that is not installed.
        get: how to get them, for the message.

    Raises:
        UserError: they are nowhere.
    """
    looked = []
    for folder in _folders(inside, also):
        found = [_file(folder / name) for name in names]
        if None not in found:
            return [path for path in found if path is not None]
        looked.append(str(folder))
    raise UserError(
        f"{title} is not on this machine: {get}; or name its folder by --data or {FOLDER}; looked for {names[0]} in "
        f"{', '.join(dict.fromkeys(looked)) or 'no folder'}"
    )


def package(name: str, *below: str) -> Path | None:
    """A folder within an installed Python package, which is not imported; None where it is not installed."""
    found = importlib.util.find_spec(name)
    places = None if found is None else found.submodule_search_locations
    return Path(*places, *below) if places else None


def _folders(inside: Sequence[str], also: Sequence[Path | None]) -> Iterator[Path]:
    given = os.environ.get(FOLDER)
    if given:
        yield Path(given).expanduser()
    for root in [*([Path(given).expanduser()] if given else []), *TORCHVISION]:
        yield from (root / folder for folder in inside)
    yield from (folder for folder in also if folder is not None)


def _file(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)
