"""All probes by the names that the command and the traces use. Importing this module does not import torch."""

from __future__ import annotations

from probes.instruments.base import Instrument
from probes.instruments.conditioning import GaussNewtonConditioning
from probes.instruments.curvature import ConditionNumber, CurvatureTrace, SpectralDensity, Spectrum
from probes.instruments.dual_gradient import DualGradient
from probes.instruments.function_class import FunctionClass
from probes.instruments.gradient import Alignment, Gradient, Updates
from probes.instruments.neural_collapse import NeuralCollapse
from probes.instruments.sharpness import BatchSharpness, CriticalSharpness, SAMSharpness, Sharpness
from probes.instruments.solver_steps import SolverSteps

_CLASSES: tuple[type[Instrument], ...] = (
    Spectrum,
    CurvatureTrace,
    SpectralDensity,
    ConditionNumber,
    GaussNewtonConditioning,
    FunctionClass,
    NeuralCollapse,
    DualGradient,
    Sharpness,
    Gradient,
    BatchSharpness,
    CriticalSharpness,
    SAMSharpness,
    Alignment,
    Updates,
    SolverSteps,
)
PROBES: dict[str, type[Instrument]] = {kind.name: kind for kind in _CLASSES}
