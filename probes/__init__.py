"""Instruments: look at a run or a checkpoint, keep what was seen, show it.

Names are imported when they are first used, so that `from probes import Trace` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.curvature import ConditionNumber, CurvatureTrace, SpectralDensity, Spectrum
    from probes.monitor import Monitor, Outcome, ProbeWarning, measure_once
    from probes.probe import Context, Every, Moment, Probe, Schedule
    from probes.trace import Trace
    from probes.trace_file import Field, TraceError
    from probes.trace_records import Records

_MODULES = {
    "probes.curvature": ("ConditionNumber", "CurvatureTrace", "SpectralDensity", "Spectrum"),
    "probes.monitor": ("Monitor", "Outcome", "ProbeWarning", "measure_once"),
    "probes.probe": ("Context", "Every", "Moment", "Probe", "Schedule"),
    "probes.trace": ("Trace",),
    "probes.trace_file": ("Field", "TraceError"),
    "probes.trace_records": ("Records",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ConditionNumber",
    "Context",
    "CurvatureTrace",
    "Every",
    "Field",
    "Moment",
    "Monitor",
    "Outcome",
    "Probe",
    "ProbeWarning",
    "Records",
    "Schedule",
    "SpectralDensity",
    "Spectrum",
    "Trace",
    "TraceError",
    "measure_once",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
