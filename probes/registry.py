"""All probes by the names that the command and the traces use. Importing this module does not import torch."""

from __future__ import annotations

from typing import Any

from probes import curvature
from probes.conditioning import GaussNewtonConditioning
from probes.dual_gradient import DualGradient
from probes.dynamics import BatchSharpness, CriticalSharpness, DynamicsProbe, Sharpness
from probes.function_class import FunctionClass
from probes.gradients import Alignment, Gradient, SAMSharpness, Updates
from probes.neural_collapse import NeuralCollapse
from probes.solver_steps import SolverSteps

_DYNAMICS: tuple[type[DynamicsProbe], ...] = (
    Sharpness,
    Gradient,
    BatchSharpness,
    CriticalSharpness,
    SAMSharpness,
    Alignment,
    Updates,
    SolverSteps,
)

_OTHERS: tuple[type[Any], ...] = (GaussNewtonConditioning, FunctionClass, NeuralCollapse, DualGradient, *_DYNAMICS)

PROBES: dict[str, type[Any]] = {**curvature.PROBES, **{probe.default_name: probe for probe in _OTHERS}}
