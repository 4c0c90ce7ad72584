"""The probe of what a second-order solver did at its last step. Importing this module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from probes.context import Context
from probes.instruments.base import CURVATURE, DynamicsProbe
from probes.trace.layout import Field

_FIELDS: dict[str, tuple[str, str]] = {
    "accepted": ("", "1 if the parameters moved, 0 if the step was rejected"),
    "loss": ("loss", "f where the step began, on the closure's data"),
    "new_loss": ("loss", "f at the last point that was tried; nan where it was not finite"),
    "decrease": ("loss", "what the model promised"),
    "ratio": ("", "(loss - new_loss) / decrease"),
    "M": ("", "the solver's constant for the next step: M, H, L, gamma or the damping"),
    "used": ("", "that constant in this step's last model"),
    "shift": (CURVATURE, "what was added to the eigenvalues of the Hessian"),
    "size": ("", "dimension of the space that the step was chosen in"),
    "gradient_norm": ("loss/parameter", "norm of the gradient in that space where the step began"),
    "lowest": (CURVATURE, "smallest eigenvalue of the Hessian in that space"),
    "length": ("parameter", "norm of the step"),
    "products": ("products", "Hessian products made"),
    "tries": ("", "points tried"),
    "stalled": ("", "1 if the promise was below the rounding of the loss"),
    "hard_case": ("", "1 if the step followed a direction of negative curvature that the gradient does not see"),
}


@dataclass(frozen=True, kw_only=True)
class SolverSteps(DynamicsProbe):
    """What the monitor's optimizer says about its last step: SSCN and the Newton-type solvers do.

    Fields: those of `solver.last` by their names, all float64: accepted, loss, new_loss, decrease, ratio, M, used,
    shift, size, gradient_norm, lowest, length, products, tries, stalled, hard_case. nan before the first step and for
    what a solver does not say. Reading them costs nothing; at a step the row is that of the step before the call.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"optimizer"})
    default_name: ClassVar[str] = "solver"

    def expected(self, context: Context) -> dict[str, float]:
        """Nothing that grows with the data."""
        return {}

    def fields(self, context: Context) -> dict[str, Field]:
        """The fields that the class names. Raises `ValueError` for an optimizer that does not report its steps."""
        if not hasattr(context.optimizer, "last"):
            optimizer = context.optimizer
            why = "pass Monitor(..., optimizer=solver)" if optimizer is None else f"{type(optimizer).__name__} does not"
            raise ValueError(
                f"{self.name} needs an optimizer that reports its steps as .last (SSCN, CubicNewton, ...): {why}"
            )
        return {name: Field((), "float64", units, what) for name, (units, what) in _FIELDS.items()}

    def measure(self, context: Context) -> dict[str, Any]:
        """One value per field."""
        last = getattr(context.optimizer, "last", None)
        return {name: _number(getattr(last, name, None)) for name in _FIELDS}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
