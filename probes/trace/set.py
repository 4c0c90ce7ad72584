"""TraceSet: many runs as one, a trace file each.

    runs = TraceSet.open("sweep")                        # or "sweep/*/run.h5"
    runs.where(lr=0.1)["sharpness"]["value"]             # one column over all runs that have it
    for values, repetitions in runs.groups():            # runs whose configs are equal up to the seed
        print(values, len(repetitions))

What is kept of a run is its header; records are read when they are asked for. Does not import torch.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from probes.errors import did_you_mean, first_few, one_line
from probes.trace.configs import Config, freeze, label_of, order_of, varying_keys
from probes.trace.frames import frame_of_runs, tree_of
from probes.trace.layout import TraceError
from probes.trace.runs import Run, SetRecords

if TYPE_CHECKING:
    import pandas
    import xarray

_SUFFIXES = (".h5", ".hdf5")
Paths = str | os.PathLike[str]


class Group(NamedTuple):
    """Runs that belong together: the values of their keys, and the runs."""

    values: Config
    runs: TraceSet

    @property
    def label(self) -> str:
        """`lr=0.1 batch=32`; the name of the run when nothing tells it from others."""
        return label_of(self.values) or (self.runs.names[0] if len(self.runs) == 1 else "all runs")


class TraceSet:
    """Runs, in the natural order of their names. Iterating gives `Run`s; `runs["sharpness"]` the records of all.

    Attributes:
        folder: what the names are relative to.
        unreadable: file -> why it could not be read (crashed while it was created, foreign, too new).

    Example:
        >>> from probes import Field, Trace, TraceSet
        >>> for lr in (0.1, 0.2):
        ...     with Trace.create(f"run-{lr}.h5", config={"lr": lr}) as trace:
        ...         trace.declare("loss", {"value": Field()})
        ...         trace.record("loss", step=0, value=5 * lr)
        >>> runs = TraceSet.open("run-*.h5")
        >>> [(run.config["lr"], run.records("loss")["value"].tolist()) for run in runs]
        [(0.1, [0.5]), (0.2, [1.0])]
    """

    def __init__(self, folder: Path, runs: Sequence[Run], unreadable: Mapping[str, str]) -> None:
        self.folder = folder
        self._runs = tuple(runs)
        self.unreadable = dict(unreadable)

    @classmethod
    def open(cls, where: Paths | Iterable[Paths]) -> TraceSet:
        """The traces in a folder (`.h5` and `.hdf5`, in its subfolders too), of a glob pattern, or of several such.

        Runs that are being written are readable as far as they are flushed. Files that cannot be read are
        listed in `unreadable`. Raises `TraceError` when there is no file at all, or none that can be read.
        """
        places = [where] if isinstance(where, str | os.PathLike) else list(where)
        files = {path for place in places for path in _files(os.path.expanduser(os.fspath(place)))}
        if not files:
            raise TraceError("there are no traces to open: name a folder, a glob pattern or files")
        folder = Path(os.path.commonpath([path.parent for path in files]))
        runs, unreadable = [], {}
        for path in sorted(files, key=lambda path: _natural_key(str(path))):
            name = path.relative_to(folder).as_posix()
            try:
                runs.append(Run.read(name, path))
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                unreadable[name] = one_line(error)
        if not runs:
            name, reason = next(iter(unreadable.items()))
            if len(unreadable) == 1:
                raise TraceError(f"the only file in {folder} cannot be read; {name}: {reason}")
            raise TraceError(f"none of {len(unreadable)} files in {folder} can be read; {name}: {reason}")
        return cls(folder, runs, unreadable)

    # -- runs ------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return [run.name for run in self._runs]

    @property
    def configs(self) -> list[Config]:
        """The configuration of each run, flattened, with its seed."""
        return [dict(run.config) for run in self._runs]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def run(self, name: str) -> Run:
        """The run of that name. Raises `KeyError` when there is none."""
        for run in self._runs:
            if run.name == name:
                return run
        raise KeyError(f"there is no run {name!r}{did_you_mean(name, self.names)}")

    def where(self, conditions: Mapping[str, Any] | None = None, /, **more: Any) -> TraceSet:
        """The runs whose config fits: `where(lr=0.1)`, `where({"optimizer.lr": 0.1})`.

        A condition is a value, a set of values, or a function of the value that says whether it fits. A run
        without the key does not fit. Raises `KeyError` for a key that no run has.
        """
        wanted = {**(conditions or {}), **more}
        if self._runs:
            self._check_keys(wanted)
        tests = {key: _condition(value) for key, value in wanted.items()}
        return self._only(
            run for run in self._runs if all(key in run.config and test(run.config[key]) for key, test in tests.items())
        )

    def groups(self, *keys: str) -> list[Group]:
        """The runs grouped by the values of the keys, a run without the key under None, in order of the values.

        Without keys, by all that differs between their configs apart from seeds: a group's runs repeat one experiment.
        The key "run" puts each run into a group of its own. Raises `KeyError` for a key that no run has.
        """
        self._check_keys(keys, "run")
        chosen = keys or varying_keys(self.configs)
        found: dict[Any, list[Run]] = {}
        for run in self._runs:
            found.setdefault(tuple(freeze(_value(run, key)) for key in chosen), []).append(run)
        groups = [Group({key: _value(runs[0], key) for key in chosen}, self._only(runs)) for runs in found.values()]
        return sorted(groups, key=lambda group: order_of(group.values.values()))

    # -- records ---------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """The names of the groups of records that any run has, sorted."""
        return sorted({name for run in self._runs for name in run.probes})

    def __contains__(self, name: object) -> bool:
        return any(name in run.probes for run in self._runs)

    def __getitem__(self, name: str) -> SetRecords:
        if name not in self:
            raise KeyError(f"no run has records {name!r}; there are {', '.join(self.keys()) or 'none'}")
        return SetRecords(name, [run for run in self._runs if name in run.probes])

    def to_pandas(self, name: str | None = None) -> pandas.DataFrame:
        """The records of `name` in long form, see `SetRecords.to_pandas`; without a name, a row per run.

        That table has run, seed, created, uuid, and a column per config key. Raises `MissingExtra` when pandas
        is not installed.
        """
        if name is not None:
            return self[name].to_pandas()
        return frame_of_runs(
            ({"run": run.name, "created": run.created, "uuid": run.uuid}, run.config) for run in self._runs
        )

    def to_xarray(self, name: str | None = None) -> xarray.Dataset | xarray.DataTree:
        """The records of `name` along run and step, see `SetRecords.to_xarray`; without a name, a tree of all runs.

        In the tree the path `run.h5/sharpness` is a Dataset; runs in subfolders are in subtrees. Raises
        `MissingExtra` when xarray is not installed.
        """
        if name is not None:
            return self[name].to_xarray()
        trees = {}
        for run in self._runs:
            with run.open() as trace:
                trees[run.name] = trace.to_xarray()
        return tree_of({}, trees)

    def __repr__(self) -> str:
        rest = f", unreadable={len(self.unreadable)}" if self.unreadable else ""
        return f"TraceSet({str(self.folder)!r}, runs={len(self)}{rest})"

    def _check_keys(self, keys: Iterable[str], *more: str) -> None:
        """Raise `KeyError` for a key that is neither in a config nor one of `more`."""
        known = {*more, *(key for config in self.configs for key in config)}
        for key in keys:
            if key not in known:
                listed = first_few(sorted(known), 12) or "none"
                raise KeyError(f"no run has {key!r} in its config; there are {listed}{did_you_mean(key, known)}")

    def _only(self, runs: Iterable[Run]) -> TraceSet:
        return TraceSet(self.folder, list(runs), self.unreadable)


def _files(place: str) -> list[Path]:
    """The files that a folder, a pattern or a path stands for, absolute."""
    path = Path(os.path.abspath(place))
    if path.is_dir():
        traces = _traces(Path(top, name) for top, _, names in os.walk(path) for name in names)
        if not traces:
            raise TraceError(f"there are no traces (*{', *'.join(_SUFFIXES)}) in the folder {place}")
        return traces
    if path.exists():
        return [path]
    if not glob.has_magic(place):
        raise TraceError(f"there is no file or folder {place}")
    files = []
    for match in map(Path, map(os.path.abspath, glob.glob(place, recursive=True))):
        if match.is_dir():
            files += _traces(match.iterdir())
        elif match.is_file():
            files.append(match)
    if not files:
        raise TraceError(f"no file matches {place}")
    return files


def _traces(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix in _SUFFIXES and not path.name.startswith(".")]


def _natural_key(text: str) -> list[tuple[float, str]]:
    """A key that sorts seed2 before seed10, and lr0.02 before lr0.1."""
    parts = re.split(r"([0-9]+(?:\.[0-9]+)?)", text)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def _condition(wanted: Any) -> Callable[[Any], bool]:
    if callable(wanted):
        return lambda value: bool(wanted(value))
    if isinstance(wanted, AbstractSet):
        options = {freeze(option) for option in wanted}
        return lambda value: freeze(value) in options
    return lambda value: freeze(value) == freeze(wanted)


def _value(run: Run, key: str) -> Any:
    return run.name if key == "run" else run.config.get(key)
