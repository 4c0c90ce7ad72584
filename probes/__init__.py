"""Instruments: look at a run or a checkpoint, keep what was seen, show it.

Names are imported when they are first used, so that `from probes import Trace` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landscape.exports import exports
from probes.instruments.registry import PROBES

if TYPE_CHECKING:
    from probes.checkpoints.load import load_checkpoint as load_checkpoint
    from probes.context import Context as Context
    from probes.context import Previous as Previous
    from probes.display.progress import progress as progress
    from probes.errors import LandscapeWarning as LandscapeWarning
    from probes.errors import NoiseWarning as NoiseWarning
    from probes.errors import ProbeWarning as ProbeWarning
    from probes.errors import TraceWarning as TraceWarning
    from probes.instruments.attention_entropy import AttentionEntropy as AttentionEntropy
    from probes.instruments.batch_rule import BatchRule as BatchRule
    from probes.instruments.by_layer import BlockHeterogeneity as BlockHeterogeneity
    from probes.instruments.by_layer import ByLayer as ByLayer
    from probes.instruments.conditioning import GaussNewtonConditioning as GaussNewtonConditioning
    from probes.instruments.connection.connection import Connection as Connection
    from probes.instruments.critical_steps import CriticalStepCurve as CriticalStepCurve
    from probes.instruments.curvature import ConditionNumber as ConditionNumber
    from probes.instruments.curvature import CurvatureTrace as CurvatureTrace
    from probes.instruments.curvature import SpectralDensity as SpectralDensity
    from probes.instruments.curvature import Spectrum as Spectrum
    from probes.instruments.dual_gradient import DualGradient as DualGradient
    from probes.instruments.effective_rank import EffectiveRank as EffectiveRank
    from probes.instruments.function_class import FunctionClass as FunctionClass
    from probes.instruments.gradient import Alignment as Alignment
    from probes.instruments.gradient import Gradient as Gradient
    from probes.instruments.gradient import SAMSharpness as SAMSharpness
    from probes.instruments.gradient import Updates as Updates
    from probes.instruments.hgp import GradientProducts as GradientProducts
    from probes.instruments.neural_collapse import NeuralCollapse as NeuralCollapse
    from probes.instruments.recording import Recording as Recording
    from probes.instruments.recording import ReplayError as ReplayError
    from probes.instruments.relative_sharpness import RelativeCriticalSharpness as RelativeCriticalSharpness
    from probes.instruments.sharpness import BatchSharpness as BatchSharpness
    from probes.instruments.sharpness import CriticalSharpness as CriticalSharpness
    from probes.instruments.sharpness import Sharpness as Sharpness
    from probes.instruments.snapshots import Snapshots as Snapshots
    from probes.instruments.solver_steps import SolverSteps as SolverSteps
    from probes.instruments.surface import LossSurface as LossSurface
    from probes.instruments.threshold import ThresholdSpectrum as ThresholdSpectrum
    from probes.monitor.measure import Outcome as Outcome
    from probes.monitor.measure import measure_once as measure_once
    from probes.monitor.monitor import Monitor as Monitor
    from probes.probe import Probe as Probe
    from probes.schedules import At as At
    from probes.schedules import Epochs as Epochs
    from probes.schedules import Every as Every
    from probes.schedules import LogSpaced as LogSpaced
    from probes.schedules import Moment as Moment
    from probes.schedules import Schedule as Schedule
    from probes.schedules import When as When
    from probes.session import Pairs as Pairs
    from probes.trace.layout import Field as Field
    from probes.trace.layout import TraceError as TraceError
    from probes.trace.records import Records as Records
    from probes.trace.set import TraceSet as TraceSet
    from probes.trace.trace import Trace as Trace
    from probes.views.pictures.draw import plot_trace as plot_trace
    from probes.views.report.write import report as report

_HOME = {entry.class_name: f"probes.instruments.{entry.home.partition(':')[0]}" for entry in PROBES.values()}
for _module, _names in {
    "probes.checkpoints.load": ("load_checkpoint",),
    "probes.context": ("Context", "Previous"),
    "probes.display.progress": ("progress",),
    "probes.errors": ("LandscapeWarning", "NoiseWarning", "ProbeWarning", "TraceWarning"),
    "probes.instruments.recording": ("Recording", "ReplayError"),
    "probes.monitor.measure": ("Outcome", "measure_once"),
    "probes.monitor.monitor": ("Monitor",),
    "probes.probe": ("Probe",),
    "probes.schedules": ("At", "Epochs", "Every", "LogSpaced", "Moment", "Schedule", "When"),
    "probes.session": ("Pairs",),
    "probes.trace.layout": ("Field", "TraceError"),
    "probes.trace.records": ("Records",),
    "probes.trace.set": ("TraceSet",),
    "probes.trace.trace": ("Trace",),
    "probes.views.pictures.draw": ("plot_trace",),
    "probes.views.report.write": ("report",),
}.items():
    _HOME |= dict.fromkeys(_names, _module)

__getattr__, __dir__, __all__ = exports(__name__, _HOME)
