"""All probes by the names that the command and the traces use. Importing this module does not import torch."""

from __future__ import annotations

from typing import Any

from probes.instruments import curvature
from probes.instruments.base import DynamicsProbe
from probes.instruments.conditioning import GaussNewtonConditioning
from probes.instruments.dual_gradient import DualGradient
from probes.instruments.function_class import FunctionClass
from probes.instruments.gradient import Alignment, Gradient, Updates
from probes.instruments.neural_collapse import NeuralCollapse
from probes.instruments.sharpness import BatchSharpness, CriticalSharpness, SAMSharpness, Sharpness
from probes.instruments.solver_steps import SolverSteps

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
