"""The probe of one loss along the steps that another one makes (arXiv 2601.16979)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CONVERGED, CURVATURE, values_of
from probes.instruments.losses import (
    NamedObjective,
    TwoLosses,
    check_parameters,
    gradient_of,
    is_objective,
    objective_of,
)
from probes.instruments.sharpness import ThresholdInstrument
from probes.trace.layout import Field

if TYPE_CHECKING:
    from torch import Tensor

    from landscape import Objective


@dataclass(frozen=True, kw_only=True)
class RelativeCriticalSharpness(TwoLosses, ThresholdInstrument):
    """2 / eta_c, eta_c the smallest step for one loss at which another one rises (arXiv 2601.16979).

    How much of the data that is not trained on (or is no longer) a step may be taken by: the update of `moves` is
    computed, and the loss `watched` is looked at along it.

    Fields: value with its bracket lower and upper, and threshold, all in loss/parameter^2; ascent (the watched loss
    rises at once: value is inf); slope with slope_error, by which the watched loss changes per unit of step, to first
    order; evaluations (forward passes over the watched loss's data); converged. Of gradients the threshold is what the
    optimizer bears, 2 / lr for gradient descent. Updates are per unit of lr (threshold 2 / lr), or by themselves where
    there is no single lr (threshold 2). Searches start from the last eta_c.

    Attributes:
        moves: "batch" (the gradient on the training loop's batch, `monitor(step, batch=...)`), "objective" (that of the
            monitor's objective), another `Objective` of the same model (its gradient), or "update": the step that
            training made since the call before, whatever its optimizer. Gradients go through the preconditioner of an
            adaptive optimizer that is known to `landscape.sharpness.stability`.
        watched: "objective", "batch" or another `Objective` of the same model.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import RelativeCriticalSharpness, Trace, measure_once
        >>> held_out = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), 9 * ones(2, 1)))
        >>> probe, batch = RelativeCriticalSharpness(), (eye(2), 8 * ones(2, 1))
        >>> with Trace.create("relative.h5") as trace:
        ...     found = measure_once(held_out, [probe], trace, step=0, batch=batch)[probe.name].values
        >>> f"{found['value']:.0f}", found["ascent"]
        ('3', False)
    """

    name: str = "relative-critical-sharpness"
    moves: Literal["batch", "objective", "update"] | Objective | NamedObjective = "batch"
    watched: Literal["objective", "batch"] | Objective | NamedObjective = "objective"
    rtol: float = 1 / 16
    losses: ClassVar[tuple[str, str]] = ("moves", "watched")
    takes: ClassVar[Mapping[str, float]] = {"gradient": 1.0, "value": 8.0}  # of the watched loss

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, words in (("moves", ("batch", "objective", "update")), ("watched", ("objective", "batch"))):
            if getattr(self, name) not in words and not is_objective(getattr(self, name)):
                self._refuse(name, f"is one of {', '.join(words)}, or an Objective, for the command module:function")
        if self.moves == self.watched:
            self._refuse("watched", "is the loss that moves: CriticalSharpness measures that")

    @property
    @override
    def needs(self) -> frozenset[str]:
        words = {self.moves, self.watched}
        training = {"batch"} & words | ({"previous"} if "update" in words else set())
        if "update" in words and self.lr is None:
            training |= {"optimizer"}
        return frozenset({"loss", "gradient"} | training)

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        """Raises `ValueError` for an objective of other parameters."""
        check_parameters(context, self.moves, self.watched)
        limit = "value up to which steps of the optimizer do not raise the watched loss; nan if unknown"
        slope = "change of the watched loss per unit of step, to first order; it rises where this is positive"
        return {
            "value": Field((), "float64", CURVATURE, "2 / smallest step at which the watched loss rises"),
            "lower": Field((), "float64", CURVATURE, "value is at least this"),
            "upper": Field((), "float64", CURVATURE, "value is at most this"),
            "ascent": Field((), "bool", "", "whether the watched loss rises from the first step on"),
            "slope": Field((), "float64", "loss/step", slope),
            "slope_error": Field((), "float64", "loss/step", "rounding of slope"),
            "evaluations": Field((), "int64", "passes", "forward passes over the data of the watched loss"),
            "converged": CONVERGED,
            "threshold": Field((), "float64", CURVATURE, limit),
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import relative_critical_sharpness

        context.objective.only_whole("relative critical sharpness")
        update, threshold = self._update(context)
        if update is None:  # there is none yet
            row = dict.fromkeys(("value", "lower", "upper", "slope", "slope_error"), math.nan)
            return row | {"ascent": False, "evaluations": 0, "converged": False, "threshold": threshold}
        watched = objective_of(context, self.watched, self.name)
        shared = context.gradients() if watched is context.objective else None
        found = relative_critical_sharpness(
            moves=update,
            watched=watched,
            start=context.memory.get("step"),
            rtol=self.rtol,
            known=None if shared is None else (shared.loss, shared.gradient),
        )
        if found.converged and not found.ascent:
            context.memory["step"] = found.step
        return values_of(found, self.fields(context).keys() - {"threshold"}) | {"threshold": threshold}

    def _update(self, context: Context) -> tuple[Tensor | None, float]:
        """What theta goes against per unit of lr, None before the first step of training; and the threshold."""
        if self.moves == "update":
            update, lr = self._last_update(context)
            return update, 2.0 / lr
        gradient = gradient_of(context, objective_of(context, self.moves, self.name))
        found = self._stability(context)
        if found is None or found.scale is None:
            return gradient, self._threshold(context)
        return found.scale.to(gradient) * gradient, found.preconditioned_threshold
