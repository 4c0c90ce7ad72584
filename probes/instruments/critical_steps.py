"""The probe of the steps that training could take: the one that raises the loss, beside 2 / lambda_max."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CONVERGED, TOLD, Instrument, first, told
from probes.instruments.sharpness import only_rate
from probes.session import Pairs
from probes.trace.layout import Field

_STEP = "parameter^2/loss"


@dataclass(frozen=True, kw_only=True)
class CriticalStepCurve(Instrument):
    """The step along the gradient that raises the loss (arXiv 2601.16979), beside 2 / lambda_max and the one taken.

    Of a quadratic the critical step is never below 2 / lambda_max, where gradient descent becomes unstable, and reaches
    it as the gradient turns into the top eigenvector. Early in training there may be much room between the two: a
    warm-up keeps the learning rate below the critical step meanwhile. Measure the first steps of runs with and without
    one, `every=LogSpaced(...)`, and look at them together, `landscape compare`.

    Fields, in parameter^2/loss: critical with its bracket critical_lower and critical_upper (inf where no step raises
    the loss); edge = 2 / lambda_max with edge_lower and edge_upper from the residual (inf where no eigenvalue is
    positive); lr, the learning rate as it stands (nan without one, or with several). And ratio = critical / edge;
    evaluations (forward passes); matvecs; converged, of both searches.

    Attributes:
        lr: goes before the optimizer's own.
        rtol: of the critical step.
        tol: of lambda_max, residual / |largest|.
        warm: start both searches from what the last ones found.

    Example:
        >>> from torch import nn, ones
        >>> from landscape import Objective
        >>> from probes import CriticalStepCurve, Trace, measure_once
        >>> objective = Objective(nn.Linear(1, 1), nn.MSELoss(), (ones(1, 1), 9 * ones(1, 1)))
        >>> probe = CriticalStepCurve(lr=0.1, rtol=1e-3)
        >>> with Trace.create("steps.h5") as trace:
        ...     found = measure_once(objective, [probe], trace, step=0)["critical-step-curve"].values
        >>> f"{found['critical']:.2f} {found['edge']:.2f} {found['lr']}"  # of one direction: the same
        '0.50 0.50 0.1'
    """

    name: str = "critical-step-curve"
    lr: float | None = None
    rtol: float = 1 / 16
    tol: float = 1e-3
    warm: bool = True
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "gradient", "graph"})
    takes: ClassVar[Mapping[str, float]] = {"gradient": 1.0, "value": 8.0}

    @property
    @override
    def pairs(self) -> Pairs:
        return Pairs(k=1, tol=self.tol, warm=self.warm)

    @override
    def expected(self, context: Context) -> dict[str, float]:
        return super().expected(context) | dict(self.takes)

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        return {
            "critical": Field((), "float64", _STEP, "smallest step along the gradient that raises the loss"),
            "critical_lower": Field((), "float64", _STEP, "a step that does not raise the loss"),
            "critical_upper": Field((), "float64", _STEP, "a step that does"),
            "edge": Field((), "float64", _STEP, "2 / largest eigenvalue of the Hessian"),
            "edge_lower": Field((), "float64", _STEP, "edge is at least this"),
            "edge_upper": Field((), "float64", _STEP, "edge is at most this"),
            "ratio": Field((), "float64", "", "critical / edge; 1 where the gradient is the top eigenvector"),
            "lr": Field((), "float64", _STEP, "learning rate of the next step; nan if unknown"),
            "evaluations": Field((), "int64", "passes", "forward passes over the data"),
            "matvecs": Field((), "int64", "products", "Hessian products made, by searches of other probes included"),
            "converged": CONVERGED,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import critical_sharpness

        context.objective.only_whole("critical sharpness")
        shared, pairs = context.gradients(), context.eigenpairs(self.pairs)
        start = context.memory.get("step") if self.warm else None
        found = critical_sharpness(context.objective, shared.gradient, start=start, rtol=self.rtol, loss=shared.loss)
        if found.converged:
            context.memory["step"] = found.step
        value, residual = first(pairs.values), first(pairs.residuals)
        edge = _two_over(value)
        lr = only_rate(context) if self.lr is None else self.lr
        return {
            "critical": found.step,
            "critical_lower": _two_over(found.upper),
            "critical_upper": _two_over(found.lower),
            "edge": edge,
            "edge_lower": _two_over(value + residual),
            "edge_upper": _two_over(value - residual),
            "ratio": found.step / edge if math.isfinite(edge) else math.nan,
            "lr": math.nan if lr is None else lr,
            "evaluations": found.evaluations,
            "matvecs": pairs.matvecs,
            "converged": found.converged and pairs.converged,
            **told(pairs),
        }


def _two_over(curvature: float) -> float:
    """The step at which a direction of this curvature becomes unstable: none does where it is not positive."""
    return 2.0 / curvature if not curvature <= 0 else math.inf
