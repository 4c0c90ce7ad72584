"""Probes of the training dynamics: how sharp the loss is where training stands, against what its optimizer bears.

Each keeps what one function of `landscape.sharpness` says, error bar included. Thresholds come from the monitor's
optimizer, or from `lr=` where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CONVERGED, CURVATURE, TOLD, Instrument, first, told, values_of
from probes.session import Pairs
from probes.trace.layout import Field

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.sharpness import Stability
    from landscape.spectra import Eigenpairs


@dataclass(frozen=True, kw_only=True)
class ThresholdInstrument(Instrument):
    """A probe that compares curvature with what the optimizer bears; without one the threshold is nan.

    Attributes:
        lr, momentum: of plain SGD, for a threshold without an optimizer; they go before the optimizer's own.
    """

    lr: float | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(momentum=0 <= self.momentum < 1)

    def _stability(self, context: Context) -> Stability | None:
        """What the optimizer bears, found once a step; None without one or where `lr` is set."""
        if self.lr is not None or context.optimizer is None:
            return None
        from landscape.sharpness import stability

        optimizer = context.optimizer
        return context.once("stability", lambda: stability(optimizer, context.objective))

    def _threshold(self, context: Context) -> float:
        """On the largest eigenvalue of the Hessian; nan when it is not known."""
        from landscape.sharpness import plain_threshold

        found = self._stability(context)
        own = math.nan if found is None else found.threshold
        return own if self.lr is None else plain_threshold(self.lr, self.momentum)

    def _last_update(self, context: Context) -> tuple[Tensor | None, float]:
        """What training went against since the call before, per step and unit of lr (None at the first); and that lr.

        Where there is no one learning rate it is 1: steps are then counted in updates.
        """
        previous, rate = context.previous, (only_rate(context) or 1.0) if self.lr is None else self.lr
        if previous is None:
            return None, rate
        steps = max(1, context.step - previous.step)
        return (previous.theta - context.objective.theta()) / (rate * steps), rate


def only_rate(context: Context) -> float | None:
    """The one learning rate of the optimizer; None without an optimizer, and where there are several or it is 0."""
    groups = [] if context.optimizer is None else context.optimizer.param_groups
    found = {float(group.get("lr", 0.0)) for group in groups}
    return found.pop() if len(found) == 1 and min(found) > 0 else None


@dataclass(frozen=True, kw_only=True)
class Sharpness(ThresholdInstrument):
    """The largest eigenvalue of the Hessian, against the optimizer's stability threshold (arXiv 2103.00065).

    Fields: value, residual and threshold (2 / lr for gradient descent; nan when the optimizer is not given, adaptive or
    not known); preconditioned, preconditioned_residual and preconditioned_threshold, of P^(-1/2) H P^(-1/2) with an
    adaptive optimizer's preconditioner P (arXiv 2207.14484) or learning rates that differ, else nan; matvecs of both
    searches; converged. All in loss/parameter^2. `tol` bounds residual / |largest|. In a monitor the searches start
    from the vectors that the last ones found; `warm=False` starts anew each time.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Sharpness, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("sharpness.h5") as trace:
        ...     found = measure_once(objective, [Sharpness(lr=0.5)], trace, step=0)["sharpness"].values
        >>> f"{found['value']:.3f} of {found['threshold']}"
        '3.000 of 4.0'
    """

    name: str = "sharpness"
    tol: float = 1e-3
    warm: bool = True
    needs: ClassVar[frozenset[str]] = frozenset({"graph"})

    @property
    @override
    def pairs(self) -> Pairs:
        return Pairs(k=1, tol=self.tol, warm=self.warm)

    @override
    def expected(self, context: Context) -> dict[str, float]:
        found = self._stability(context)
        return {"hessian": self.pairs.products * (2.0 if found is not None and _decides(found) else 1.0)}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        matrix = "P^(-1/2) H P^(-1/2), P the optimizer's preconditioner"
        return {
            "value": Field((), "float64", CURVATURE, "largest eigenvalue of the Hessian"),
            "residual": Field((), "float64", CURVATURE, "||H v - w v||: bounds the error of value"),
            "threshold": Field((), "float64", CURVATURE, "value up to which the optimizer is stable; nan if unknown"),
            "preconditioned": Field((), "float64", CURVATURE, f"largest eigenvalue of {matrix}; nan without one"),
            "preconditioned_residual": Field((), "float64", CURVATURE, "bounds the error of preconditioned"),
            "preconditioned_threshold": Field((), "float64", CURVATURE, "up to which preconditioned is stable"),
            "matvecs": Field((), "int64", "products", "Hessian products made, by searches of other probes included"),
            "converged": CONVERGED,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        plain, found = context.eigenpairs(self.pairs), self._stability(context)
        row = {"value": first(plain.values), "residual": first(plain.residuals), "threshold": self._threshold(context)}
        row |= told(plain)
        if found is None or not _decides(found):
            absent = ("preconditioned", "preconditioned_residual", "preconditioned_threshold")
            return row | dict.fromkeys(absent, math.nan) | values_of(plain, ("matvecs", "converged"))
        pairs = self._preconditioned(context, found)
        return row | {
            "preconditioned": first(pairs.values),
            "preconditioned_residual": first(pairs.residuals),
            "preconditioned_threshold": found.preconditioned_threshold,
            "matvecs": plain.matvecs + pairs.matvecs,
            "converged": plain.converged and pairs.converged,
        }

    def _preconditioned(self, context: Context, found: Stability) -> Eigenpairs:
        from landscape.spectra import eigsh

        A = found.operator(context.operator("hessian"))
        start = context.memory.get("vector") if self.warm else None
        pairs = eigsh(A, 1, tol=self.tol, v0=start, generator=context.generator, callback=context.callback)
        if self.warm and math.isfinite(first(pairs.values)):
            context.memory["vector"] = pairs.vectors.cpu()  # training may need the device's memory
        return pairs


def _decides(found: Stability) -> bool:
    """Whether the preconditioned matrix says what the Hessian alone does not."""
    return found.scale is not None and (found.adaptive or math.isnan(found.threshold))


@dataclass(frozen=True, kw_only=True)
class BatchSharpness(ThresholdInstrument):
    """The curvature of mini-batches along their own gradients, which SGD keeps at 2 / lr (arXiv 2412.20553).

    Fields: value with stderr, ratio_of_means (batches with a large gradient weigh more), threshold, all in
    loss/parameter^2, and batches, how many are in the mean. The batches are the objective's; `batch_size` splits them,
    in an order drawn for each measurement; `rtol` stops once stderr <= rtol * value.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import BatchSharpness, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), 9 * ones(2, 1)))
        >>> with Trace.create("batch-sharpness.h5") as trace:
        ...     found = measure_once(objective, [BatchSharpness(batch_size=1)], trace, step=0)["batch-sharpness"].values
        >>> f"{found['value']:.3f} +- {found['stderr']:.3f}"
        '4.000 +- 0.000'
    """

    name: str = "batch-sharpness"
    batch_size: int | None = None
    rtol: float | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"graph"})
    takes: ClassVar[Mapping[str, float]] = {"gradient": 1.0, "hessian": 1.0}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        bound = "the optimizer's full-batch threshold; with momentum b small batches settle at (1-b)/(1+b) of it"
        return {
            "value": Field((), "float64", CURVATURE, "mean over batches of <g_B, H_B g_B> / |g_B|^2"),
            "stderr": Field((), "float64", CURVATURE, "standard error of value; inf for one batch"),
            "ratio_of_means": Field((), "float64", CURVATURE, "mean of <g_B, H_B g_B> / mean of |g_B|^2"),
            "threshold": Field((), "float64", CURVATURE, bound),
            "batches": Field((), "int64", "batches", "batches in the mean"),
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import batch_sharpness

        chosen = values_of(self, ("batch_size", "rtol"))
        found = batch_sharpness(context.objective, generator=context.generator, **chosen)
        row = values_of(found, ("value", "stderr", "ratio_of_means", "batches"))
        return row | {"threshold": self._threshold(context)} | told(found, context.objective.noise)


@dataclass(frozen=True, kw_only=True)
class CriticalSharpness(ThresholdInstrument):
    """2 / eta_c, eta_c the smallest step that raises the loss, by a few forward passes (arXiv 2601.16979).

    Fields: value with its bracket lower and upper, threshold, all in loss/parameter^2; evaluations (forward passes);
    converged. `along="gradient"` steps along the gradient, `along="update"` goes on along the last update per unit of
    lr (threshold 2 / lr), or per update where there is no single lr (threshold 2). No step raises the loss: value 0;
    every step does: inf. Searches start from the last eta_c.

    Example:
        >>> from torch import nn, ones
        >>> from landscape import Objective
        >>> from probes import CriticalSharpness, Trace, measure_once
        >>> objective = Objective(nn.Linear(1, 1), nn.MSELoss(), (ones(1, 1), 9 * ones(1, 1)))
        >>> with Trace.create("critical-sharpness.h5") as trace:
        ...     found = measure_once(objective, [CriticalSharpness()], trace, step=0)["critical-sharpness"].values
        >>> f"{found['value']:.0f}"  # the curvature along the gradient, as the loss is quadratic
        '4'
    """

    name: str = "critical-sharpness"
    along: Literal["gradient", "update"] = "gradient"
    rtol: float = 1 / 16

    @property
    @override
    def needs(self) -> frozenset[str]:
        if self.along == "gradient":
            return frozenset({"loss", "gradient"})
        return frozenset({"loss", "previous"} | ({"optimizer"} if self.lr is None else set()))

    @override
    def expected(self, context: Context) -> dict[str, float]:
        """Passes of a first measurement: the search itself takes seven forward passes on a quadratic."""
        return {"value": 8.0} | ({"gradient": 1.0} if self.along == "gradient" else {})

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        limit = "the value from which on the optimizer's step raises the loss"
        return {
            "value": Field((), "float64", CURVATURE, f"2 / smallest step along the {self.along} that raises the loss"),
            "lower": Field((), "float64", CURVATURE, "value is at least this"),
            "upper": Field((), "float64", CURVATURE, "value is at most this"),
            "evaluations": Field((), "int64", "passes", "forward passes over the data"),
            "converged": CONVERGED,
            "threshold": Field((), "float64", CURVATURE, limit),
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import critical_sharpness

        start = context.memory.get("step")
        if self.along == "gradient":
            shared = context.gradients()
            direction, loss, threshold = shared.gradient, shared.loss, self._threshold(context)
        else:
            update, lr = self._last_update(context)
            threshold, loss = 2.0 / lr, None
            if update is None:
                row = dict.fromkeys(("value", "lower", "upper"), math.nan)
                return row | {"evaluations": 0, "converged": False, "threshold": threshold}
            direction, start = update, start or lr
        found = critical_sharpness(context.objective, direction, start=start, rtol=self.rtol, loss=loss)
        if found.converged:
            context.memory["step"] = found.step
        return values_of(found, ("value", "lower", "upper", "evaluations", "converged")) | {"threshold": threshold}
