"""Pictures of a trace: each group of records that is recognised becomes one file or more.

Error bars are what the probe recorded, never left out.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import check_choice
from probes.instruments.entry import import_from
from probes.views.kinds import KINDS, kind_of
from probes.views.pictures.axes import Columns
from probes.views.pictures.style import FORMATS, STYLES, save
from probes.views.pictures.style import style as in_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probes.trace.records import Records
    from probes.trace.trace import Trace


def plot_trace(
    trace: Trace, folder: str | os.PathLike[str], *, prefix: str = "trace", style: str = "screen", format: str = "png"
) -> list[Path]:
    """Write the pictures of each group that can be drawn, `folder/prefix-group.format`, and return their paths.

    A density of three steps or more gets a second one, `folder/prefix-group-map.format`: all of its steps.

    Args:
        trace: open, for reading or writing.
        folder: where the pictures go; made when it is not there. Those of an earlier call are replaced.
        prefix: of their names.
        style: "screen", or "paper": one column (3.25 in) or two (6.75 in) wide, 8 pt, serif, thin lines, told apart
            without colours; titles and notes are not in the picture but in the file's metadata, for the caption.
        format: "png", "pdf" or "svg". Lines and letters stay lines and letters in the latter two; maps are pixels.

    Raises `UserError` for another style or format, and for a folder that cannot be written.

    Example:
        >>> from probes import Field, Trace, plot_trace
        >>> with Trace.create("run.h5") as trace:
        ...     trace.declare("loss", {"value": Field(), "gradient_norm": Field()})
        ...     trace.record("loss", step=0, value=2.5, gradient_norm=1.0)
        ...     [str(path) for path in plot_trace(trace, "pictures", style="paper", format="pdf")]
        ['pictures/trace-loss.pdf']
    """
    check_choice("--style", style, STYLES)
    check_choice("--format", format, FORMATS)
    with in_style(style):
        return [save(made, Path(folder) / f"{prefix}-{name}.{format}") for name, made in figures(trace, style=style)]


def figures(trace: Trace, names: Iterable[str] | None = None, *, style: str = "screen") -> Iterator[tuple[str, Figure]]:
    """The pictures of these groups, by default of all, by the group's name with what tells several of them apart."""
    for name in trace if names is None else names:
        with in_style(style):
            made = pictures_of(trace, trace[name])
            if style == "paper":
                from probes.views.pictures.paper import for_paper

                made = {ending: for_paper(figure) for ending, figure in made.items()}
        yield from ((f"{name}{ending}", figure) for ending, figure in made.items())


def pictures_of(trace: Trace, records: Records, columns: Columns | None = None) -> dict[str, Figure]:
    """The pictures of one group, by what their names end in; of these `columns` of it, all by default."""
    columns = records.read() if columns is None else columns
    kind = kind_of(columns, records.settings)
    if kind is None or not len(columns["step"]):
        return {}
    made = called(import_from("probes.views.pictures", KINDS[kind].picture), trace, records, columns)
    return made if isinstance(made, dict) else {"": made}


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
