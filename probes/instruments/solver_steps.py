"""The probe of what a second-order solver did at its last step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CURVATURE, SLOPE, Instrument
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
    "gradient_norm": (SLOPE, "norm of the gradient in that space where the step began"),
    "lowest": (CURVATURE, "smallest eigenvalue of the Hessian in that space"),
    "length": ("parameter", "norm of the step"),
    "products": ("products", "Hessian products made"),
    "tries": ("", "points tried"),
    "stalled": ("", "1 if the promise was below the rounding of the loss"),
    "hard_case": ("", "1 if the step followed a direction of negative curvature that the gradient does not see"),
}


@dataclass(frozen=True, kw_only=True)
class SolverSteps(Instrument):
    """What the monitor's optimizer says about its last step: SSCN and the Newton-type solvers do.

    Fields: those of `solver.last` by their names, all float64: accepted, loss, new_loss, decrease, ratio, M, used,
    shift, size, gradient_norm, lowest, length, products, tries, stalled, hard_case. nan before the first step and for
    what a solver does not say. Reading them costs nothing; at a step the row is that of the step before the call.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import SolverSteps, Trace, measure_once
        >>> from solvers import CubicNewton
        >>> model, x, y = nn.Linear(2, 1), eye(2), ones(2, 1)
        >>> solver = CubicNewton(model.parameters())
        >>> _ = solver.step(lambda: nn.functional.mse_loss(model(x), y))
        >>> with Trace.create("solver.h5") as trace:
        ...     objective = Objective(model, nn.MSELoss(), (x, y))
        ...     found = measure_once(objective, [SolverSteps()], trace, step=1, optimizer=solver)["solver"].values
        >>> found["accepted"]
        1.0
    """

    name: str = "solver"
    needs: ClassVar[frozenset[str]] = frozenset({"optimizer"})

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        """Raises `ValueError` for an optimizer that does not report its steps."""
        if not hasattr(context.optimizer, "last"):
            raise ValueError(
                f"{self.name} needs an optimizer that reports its steps as .last (SSCN, CubicNewton, ...): "
                f"{type(context.optimizer).__name__} does not"
            )
        return {name: Field((), "float64", units, what) for name, (units, what) in _FIELDS.items()}

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        last = getattr(context.optimizer, "last", None)
        said = {name: getattr(last, name, None) for name in _FIELDS}
        return {name: math.nan if value is None else float(value) for name, value in said.items()}
