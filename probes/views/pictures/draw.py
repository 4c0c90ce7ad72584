"""Pictures of a trace: each group of records that is recognised becomes one PNG or more.

Error bars are what the probe recorded, never left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from probes.instruments.registry import import_from
from probes.views.kinds import KINDS, kind_of
from probes.views.pictures.axes import Columns
from probes.views.pictures.style import save, style

if TYPE_CHECKING:
    from probes.trace.records import Records
    from probes.trace.trace import Trace


def plot_trace(trace: Trace, folder: Path, *, prefix: str = "trace") -> list[Path]:
    """Write the pictures of each group that can be drawn, `folder/prefix-group.png`; the paths written.

    A density of three steps or more gets a second one, `folder/prefix-group-map.png`: all of its steps.
    """
    with style():
        return [save(made, folder / f"{prefix}-{name}.png") for name, made in figures(trace)]


def figures(trace: Trace, names: Iterable[str] | None = None) -> Iterator[tuple[str, Figure]]:
    """The pictures of these groups, by default of all, by the group's name with what tells several of them apart."""
    for name in trace if names is None else names:
        with style():
            made = pictures_of(trace, trace[name])
        yield from ((f"{name}{ending}", figure) for ending, figure in made.items())


def pictures_of(trace: Trace, records: Records, columns: Columns | None = None) -> dict[str, Figure]:
    """The pictures of one group, by what their names end in; of these `columns` of it, all by default."""
    columns = records.read() if columns is None else columns
    kind = kind_of(columns, records.settings)
    if kind is None or not len(columns["step"]):
        return {}
    made = called(import_from("probes.views.pictures", KINDS[kind].picture), trace, records, columns)
    return {"": made} if isinstance(made, Figure) else made


def called(draw: Callable[..., Any], trace: Trace, records: Records, columns: Columns) -> Any:
    """What a function makes of the columns and the settings, and of what else it has a parameter for."""
    settings = records.settings or {}
    extras: dict[str, Callable[[], Any]] = {
        "labels": lambda: next((field.labels for field in records.fields.values() if field.labels), ()),
        "spectrum": lambda: _spectrum(trace, settings.get("operator", "")),
        "records": lambda: records,
    }
    wanted = inspect.signature(draw).parameters
    return draw(columns, settings, **{name: make() for name, make in extras.items() if name in wanted})


def _spectrum(trace: Trace, operator: str) -> Columns | None:
    """The spectrum of the same operator in the same trace: its eigenvalues are marked in the density."""
    for name in trace:
        records = trace[name]
        settings = records.settings or {}
        if kind_of(records.fields, settings) == "spectrum" and settings.get("operator", "") == operator:
            return records.read()
    return None
