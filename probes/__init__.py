"""Instruments: look at a run or a checkpoint, keep what was seen, show it.

Names are imported when they are first used, so that `from probes import Trace` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.conditioning import GaussNewtonConditioning
    from probes.curvature import ConditionNumber, CurvatureTrace, SpectralDensity, Spectrum
    from probes.dual_gradient import DualGradient
    from probes.dynamics import BatchSharpness, CriticalSharpness, Sharpness
    from probes.function_class import FunctionClass
    from probes.gradients import Alignment, Gradient, SAMSharpness, Updates
    from probes.measuring import Outcome, ProbeWarning, measure_once
    from probes.monitor import Monitor
    from probes.neural_collapse import NeuralCollapse
    from probes.probe import Context, Pairs, Previous, Probe
    from probes.replay import Recording, ReplayError
    from probes.schedules import At, Epochs, Every, LogSpaced, Moment, Schedule, When
    from probes.solver_steps import SolverSteps
    from probes.trace import Trace
    from probes.trace_file import Field, TraceError
    from probes.trace_records import Records
    from probes.trace_set import TraceSet

_MODULES = {
    "probes.conditioning": ("GaussNewtonConditioning",),
    "probes.curvature": ("ConditionNumber", "CurvatureTrace", "SpectralDensity", "Spectrum"),
    "probes.dual_gradient": ("DualGradient",),
    "probes.dynamics": ("BatchSharpness", "CriticalSharpness", "Sharpness"),
    "probes.function_class": ("FunctionClass",),
    "probes.gradients": ("Alignment", "Gradient", "SAMSharpness", "Updates"),
    "probes.measuring": ("Outcome", "ProbeWarning", "measure_once"),
    "probes.monitor": ("Monitor",),
    "probes.neural_collapse": ("NeuralCollapse",),
    "probes.probe": ("Context", "Pairs", "Previous", "Probe"),
    "probes.replay": ("Recording", "ReplayError"),
    "probes.schedules": ("At", "Epochs", "Every", "LogSpaced", "Moment", "Schedule", "When"),
    "probes.solver_steps": ("SolverSteps",),
    "probes.trace": ("Trace",),
    "probes.trace_file": ("Field", "TraceError"),
    "probes.trace_records": ("Records",),
    "probes.trace_set": ("TraceSet",),
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
