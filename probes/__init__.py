"""Instruments: look at a run or a checkpoint, keep what was seen, show it.

Names are imported when they are first used, so that `from probes import Trace` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.context import Context, Previous
    from probes.instruments.conditioning import GaussNewtonConditioning
    from probes.instruments.curvature import ConditionNumber, CurvatureTrace, SpectralDensity, Spectrum
    from probes.instruments.dual_gradient import DualGradient
    from probes.instruments.function_class import FunctionClass
    from probes.instruments.gradient import Alignment, Gradient, Updates
    from probes.instruments.neural_collapse import NeuralCollapse
    from probes.instruments.recording import Recording, ReplayError
    from probes.instruments.sharpness import BatchSharpness, CriticalSharpness, SAMSharpness, Sharpness
    from probes.instruments.solver_steps import SolverSteps
    from probes.monitor.measure import Outcome, measure_once
    from probes.monitor.monitor import Monitor
    from probes.probe import Probe, ProbeWarning
    from probes.schedules import At, Epochs, Every, LogSpaced, Moment, Schedule, When
    from probes.session import Pairs
    from probes.trace.layout import Field, TraceError
    from probes.trace.records import Records
    from probes.trace.set import TraceSet
    from probes.trace.trace import Trace

_MODULES = {
    "probes.instruments.conditioning": ("GaussNewtonConditioning",),
    "probes.instruments.curvature": ("ConditionNumber", "CurvatureTrace", "SpectralDensity", "Spectrum"),
    "probes.instruments.dual_gradient": ("DualGradient",),
    "probes.instruments.sharpness": ("BatchSharpness", "CriticalSharpness", "SAMSharpness", "Sharpness"),
    "probes.instruments.function_class": ("FunctionClass",),
    "probes.instruments.gradient": ("Alignment", "Gradient", "Updates"),
    "probes.monitor.measure": ("Outcome", "measure_once"),
    "probes.monitor": ("Monitor",),
    "probes.instruments.neural_collapse": ("NeuralCollapse",),
    "probes.context": ("Context", "Previous"),
    "probes.probe": ("Probe", "ProbeWarning"),
    "probes.instruments.recording": ("Recording", "ReplayError"),
    "probes.schedules": ("At", "Epochs", "Every", "LogSpaced", "Moment", "Schedule", "When"),
    "probes.instruments.solver_steps": ("SolverSteps",),
    "probes.session": ("Pairs",),
    "probes.trace": ("Trace",),
    "probes.trace.layout": ("Field", "TraceError"),
    "probes.trace.records": ("Records",),
    "probes.trace.set": ("TraceSet",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Alignment",
    "At",
    "BatchSharpness",
    "ConditionNumber",
    "Context",
    "CriticalSharpness",
    "CurvatureTrace",
    "DualGradient",
    "Epochs",
    "Every",
    "Field",
    "FunctionClass",
    "GaussNewtonConditioning",
    "Gradient",
    "LogSpaced",
    "Moment",
    "Monitor",
    "NeuralCollapse",
    "Outcome",
    "Pairs",
    "Previous",
    "Probe",
    "ProbeWarning",
    "Recording",
    "Records",
    "ReplayError",
    "SAMSharpness",
    "Schedule",
    "Sharpness",
    "SolverSteps",
    "SpectralDensity",
    "Spectrum",
    "Trace",
    "TraceError",
    "TraceSet",
    "Updates",
    "When",
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
