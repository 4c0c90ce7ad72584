"""What a trace shows to those who read it: its header, its records, and the way into xarray and pandas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from probes.trace.build import EVENTS
from probes.trace.layout import Header
from probes.trace.reader import read_header
from probes.trace.records import Records

if TYPE_CHECKING:
    import pandas
    import xarray


class TraceView(ABC):
    """The reading side of `Trace`. Every access shows what has been flushed by then."""

    path: Path

    @property
    def format_version(self) -> int:
        """The version of the file's format."""
        return self._header().version

    @property
    def created(self) -> str:
        """When the trace was created: ISO 8601, UTC."""
        return self._header().created

    @property
    def uuid(self) -> str:
        """The identity of the trace; it stays when the trace is resumed."""
        return self._header().uuid

    @property
    def seed(self) -> int:
        """What the generators of the measurements derive from."""
        return self._header().seed

    @property
    def config(self) -> Any:
        """The configuration given to `create`, as JSON keeps it."""
        return self._header().config

    @property
    def environment(self) -> dict[str, Any]:
        """Python, system and package versions at creation."""
        return self._header().environment

    @property
    def periods(self) -> list[dict[str, Any]]:
        """One entry per period of writing: start (ISO 8601), step (the last one before it), environment."""
        return list(self._header().periods)

    @property
    def events(self) -> Records:
        """The rows of `/events`: fields probe and reason."""
        return Records("events", EVENTS, self.reading)

    def keys(self) -> list[str]:
        """The names of the groups of records, sorted."""
        with self.reading() as file:
            return sorted(file["probes"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Records:
        names = self.keys()
        if name not in names:
            raise KeyError(f"{self.path.name} has no records {name!r}; it has {', '.join(names) or 'none'}")
        return Records(name, f"/probes/{name}", self.reading)

    def to_xarray(self) -> xarray.DataTree:
        """All records as a tree: a Dataset per group under its name (see `Records.to_xarray`), identity as attributes.

        Raises `MissingExtra` when xarray is not installed.
        """
        from probes.trace.frames import tree_of

        return tree_of(self)

    def to_pandas(self) -> dict[str, pandas.DataFrame]:
        """All records as frames: name of the group -> DataFrame (see `Records.to_pandas`).

        Raises `MissingExtra` when pandas is not installed.
        """
        return {name: self[name].to_pandas() for name in self}

    def _header(self) -> Header:
        with self.reading() as file:
            return read_header(file)

    @abstractmethod
    def reading(self) -> AbstractContextManager[h5py.File]:
        """The file, open as long as the block lasts: one moment of it, for several reads."""
