"""Pictures of a trace: each group of records that is recognised becomes one PNG or more.

Error bars are what the probe recorded, never left out.
"""

from __future__ import annotations

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
    written = []
    with style():
        for name in trace:
            records = trace[name]
            columns = records.read()
            if len(columns["step"]):
                for ending, made in _pictures(trace, records, columns).items():
                    written.append(save(made, folder / f"{prefix}-{name}{ending}.png"))
    return written


def _pictures(trace: Trace, records: Records, columns: Columns) -> dict[str, Figure]:
    """The pictures of one group, by what their names end in."""
    settings = records.settings or {}
    kind = kind_of(columns, settings)
    if kind is None:
        return {}
    entry = KINDS[kind]
    extra: dict[str, Any] = {}
    if entry.extra == "labels":
        extra["labels"] = next((field.labels for field in records.fields.values() if field.labels), ())
    elif entry.extra == "spectrum":
        extra["spectrum"] = _spectrum(trace, settings.get("operator", ""))
    elif entry.extra == "records":
        extra["records"] = records
    made = import_from("probes.views.pictures", entry.picture)(columns, settings, **extra)
    return {"": made} if isinstance(made, Figure) else made


def _spectrum(trace: Trace, operator: str) -> Columns | None:
    """The spectrum of the same operator in the same trace: its eigenvalues are marked in the density."""
    for name in trace:
        records = trace[name]
        settings = records.settings or {}
        if kind_of(records.fields, settings) == "spectrum" and settings.get("operator", "") == operator:
            return records.read()
    return None
