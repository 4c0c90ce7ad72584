"""The probe of what the batch rule of conditional gradients knows of a loss (arXiv 2603.21191)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from probes.context import Context
from probes.errors import NoiseWarning
from probes.instruments.base import NOTE, SLOPE, told, values_of
from probes.instruments.dual_gradient import LayerNorms
from probes.trace.layout import Field

C = 2 / 3  # of lr = c / steps: where e^(3 c / 2) / c, the factor of the radius in Theorem 4.1, is least


@dataclass(frozen=True, kw_only=True)
class BatchRule(LayerNorms):
    """L, mu, rho and sigma in the norms of layers, and the batch and step size that follow from them.

    Fields: L with batch_L and its standard error (of the whole data, and of pairs of different batches, as the paper
    has it), between here and the parameters at the call before, nan at the first one; distance of the two; mu = dual /
    (f - infimum) here; rho and sigma with their standard errors (a batch of c loss terms is off by sigma / sqrt(c)).
    Then batch = (T mu rho sigma / L)^(2/3) in loss terms and lr = 2/3 batch / T, the constrained `solvers.Scion`'s, for
    T loss terms in all: right up to factors that do not depend on T, so compare them along budgets and models, or tune
    once and carry on with `solvers.batch_rule.transfer`. How large batch may be at all, T / 2, is not looked at.

    Attributes:
        norm, scale, layers, infimum: as of `DualGradient`; the radii that `Scion` has.
        budget: T, loss terms that the run will see; None: one pass over the objective's data.
        batches: of the data's, that rho and batch_L are means over.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import BatchRule, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.L1Loss(), (eye(2), 9 * ones(2, 1)))
        >>> with Trace.create("batch-rule.h5") as trace:
        ...     found = measure_once(objective, [BatchRule()], trace, step=0)["batch-rule"].values
        >>> round(found["sigma"], 3), round(found["rho"], 3)
        (1.0, 0.707)
    """

    name: str = "batch-rule"
    budget: float | None = None
    batches: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "gradient", "previous"})
    takes: ClassVar[Mapping[str, float]] = {"gradient": 4.0, "value": 1.0}  # singular values are not counted

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(budget=self.budget is None or 0 < self.budget < math.inf, batches=self.batches >= 2)

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        """Raises `ValueError` for a norm that does not fit a tensor."""
        self.norms(context)
        curvature, ratio = "loss/radius^2", f"dual norm / norm of batches' noise: radius^-1 of {SLOPE}"
        return {
            "L": Field((), "float64", curvature, "||grad f(x) - grad f(y)||_* / ||x - y||, y: at the call before"),
            "batch_L": Field((), "float64", curvature, "the same with gradients of two different batches, a mean"),
            "batch_L_stderr": Field((), "float64", curvature, "standard error of batch_L"),
            "mu": Field((), "float64", "1/radius", "dual / (f - infimum); nan where f is not above it"),
            "rho": Field((), "float64", "parameter/radius", ratio),
            "rho_stderr": Field((), "float64", "parameter/radius", "standard error of rho"),
            "sigma": Field((), "float64", SLOPE, "root of the total variance of one loss term's gradient"),
            "sigma_stderr": Field((), "float64", SLOPE, "standard error of sigma"),
            "loss": Field((), "float64", "loss", "f on the objective's data"),
            "dual": Field((), "float64", "loss/radius", "dual norm of the whole gradient"),
            "distance": Field((), "float64", "radius", "||x - y||"),
            "batch": Field((), "float64", "terms", "(T mu rho sigma / L)^(2/3), up to a factor"),
            "lr": Field((), "float64", "", "2/3 batch / T: share of the radius that a step goes"),
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import layer_constants, rule_batch

        previous = None if context.previous is None else context.previous.theta
        found = layer_constants(
            context.objective, self.norms(context), previous, known=context.gradients(), batches=self.batches
        )
        reason = f"sigma and rho are not known: {found.reason}" if found.reason else ""
        if reason:
            warnings.warn(f"{self.name}: {reason}", NoiseWarning, stacklevel=2)
        derived = ("mu", "batch", "lr", "note")
        row = values_of(found, [name for name in self.fields(context) if name not in derived])
        mu, budget = found.mu(self.infimum), self.budget or found.terms
        known = (budget, found.L, mu, found.rho, found.sigma)
        batch = rule_batch(*known) if all(x > 0 for x in known) else math.nan
        return row | {"mu": mu, "batch": batch, "lr": C * batch / budget, "note": told(found, note=reason)["note"]}
