"""Probes of the gradient and of updates: noise, worst rise nearby, alignment with curvature, relative step sizes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.errors import NoiseWarning
from probes.instruments.base import CURVATURE, NOTE, SLOPE, TOLD, Instrument, pad, told, values_of
from probes.instruments.losses import gradient_of, objective_of
from probes.session import OPERATORS, Pairs
from probes.trace.layout import Array, Field

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Gradient(Instrument):
    """The loss, its gradient and the gradient's noise, from one pass over the data (arXiv 1812.06162).

    Fields: loss (f of the objective), norm (|gradient|), noise_trace (tr of one loss term's gradient covariance: a
    batch of c terms has noise_trace / c) and noise_scale (noise_trace / |mean gradient|^2, in loss terms) with their
    standard errors, terms (loss terms in the data). The noise is estimated from how the batches differ; `parts` splits
    each into so many, and a single batch is split into 16 by itself. Where it cannot be known it is nan and a warning
    says why.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Gradient, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.L1Loss(), (eye(2), 9 * ones(2, 1)))
        >>> with Trace.create("gradient.h5") as trace:
        ...     found = measure_once(objective, [Gradient()], trace, step=0)["gradient"].values
        >>> f"{found['norm']:.3f}, noise scale {found['noise_scale']:.3f}"
        '1.225, noise scale 0.667'
    """

    name: str = "gradient"
    parts: int | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "gradient"})
    takes: ClassVar[Mapping[str, float]] = {"gradient": 1.0, "value": 1.0}  # to check that parts of a batch add up

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        return {
            "loss": Field((), "float64", "loss", "f on the objective's data"),
            "norm": Field((), "float64", SLOPE, "norm of the gradient of f"),
            "noise_trace": Field((), "float64", f"({SLOPE})^2", "trace of the covariance of one term's gradient"),
            "noise_trace_stderr": Field((), "float64", f"({SLOPE})^2", "standard error of noise_trace"),
            "noise_scale": Field((), "float64", "terms", "noise_trace / |mean gradient|^2"),
            "noise_scale_stderr": Field((), "float64", "terms", "standard error of noise_scale"),
            "terms": Field((), "float64", "terms", "loss terms in the data (their weight where classes are weighted)"),
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import gradient_statistics

        found = context.gradients() if self.parts is None else gradient_statistics(context.objective, parts=self.parts)
        if found.reason:
            warnings.warn(f"{self.name}: {self._reason(found.reason)}", NoiseWarning, stacklevel=2)
        names = self.fields(context).keys() - {"note"}
        return values_of(found, names) | {"note": told(found, note=self._reason(found.reason))["note"]}

    def _reason(self, text: str) -> str:
        return f"the gradient noise is not known: {text}" if text else ""


@dataclass(frozen=True, kw_only=True)
class SAMSharpness(Instrument):
    """How much the loss rises at distance rho along the gradient (arXiv 2010.01412).

    Fields: value = f(theta + rho g / |g|) - f(theta) and its rounding error, in the loss's units; rho; norm (|g|).
    `adaptive=True` measures distance relative to the parameters (arXiv 2102.11600), `steps` repeats the ascent within
    the ball and keeps the highest loss.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import SAMSharpness, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.L1Loss(), (eye(2), 9 * ones(2, 1)))
        >>> with Trace.create("sam-sharpness.h5") as trace:
        ...     found = measure_once(objective, [SAMSharpness(rho=0.1)], trace, step=0)["sam-sharpness"].values
        >>> f"{found['value']:.4f}"
        '0.1225'
    """

    name: str = "sam-sharpness"
    rho: float = 0.05
    steps: int = 1
    adaptive: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "gradient"})

    @override
    def expected(self, context: Context) -> dict[str, float]:
        return {"gradient": float(self.steps), "value": float(self.steps)}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        return {
            "value": Field((), "float64", "loss", "rise of the loss at the highest point found within rho"),
            "error": Field((), "float64", "loss", "rounding error of value"),
            "rho": Field((), "float64", "relative" if self.adaptive else "parameter", "radius of the ball"),
            "norm": Field((), "float64", SLOPE, "norm of the gradient"),
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import sam_sharpness

        known = values_of(context.gradients(), ("gradient", "loss"))
        found = sam_sharpness(context.objective, self.rho, steps=self.steps, adaptive=self.adaptive, **known)
        return values_of(found, self.fields(context))


@dataclass(frozen=True, kw_only=True)
class Alignment(Instrument):
    """How much of the gradient lies in the top eigenvectors of a curvature matrix (arXiv 1812.04754).

    Fields: cosines (k,), squared, with bounds (k,) on their error; total, their sum, with total_bound; eigenvalues (k,)
    and residuals (k,) in loss/parameter^2. Bounds follow from residual / gap and are 1 where eigenvalues are equal.
    `of="gradient"` is the whole objective's, "batch" that of the monitor's batch (`monitor(step, batch=...)`), "update"
    the step that training made since the call before (nan at the first one). nan for pairs that were not found.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Alignment, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), 9 * ones(2, 1)))
        >>> with Trace.create("alignment.h5") as trace:
        ...     found = measure_once(objective, [Alignment(k=2)], trace, step=0)["alignment"].values
        >>> f"{found['total']:.3f}"
        '1.000'
    """

    name: str = "alignment"
    k: int = 5
    of: Literal["gradient", "batch", "update"] = "gradient"
    operator: str = "hessian"
    tol: float = 1e-3
    warm: bool = True

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"graph", "previous" if self.of == "update" else self.of})

    @property
    @override
    def pairs(self) -> Pairs:
        # one more pair: the bounds need the gap to the next one
        return Pairs(self.operator, k=self.k + 1, tol=self.tol, warm=self.warm)

    @override
    def expected(self, context: Context) -> dict[str, float]:
        return super().expected(context) | {"gradient": 0.0 if self.of == "update" else 1.0}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        n = context.objective.size
        if self.k >= n:
            raise ValueError(f"{self.name}: k={self.k} eigenvectors of a matrix of size {n}; use k < {n}")
        eigen = partial(Field, (self.k,), "float64", dims=("eigenvalue",))
        matrix = OPERATORS[self.operator]
        total = f"share of the {self.of}'s square in the span of the {self.k} eigenvectors"
        return {
            "cosines": eigen("", f"squared cosine of the {self.of} with each top eigenvector"),
            "bounds": eigen("", "bounds the error of cosines; 1 when nothing is known"),
            "total": Field((), "float64", "", total),
            "total_bound": Field((), "float64", "", "bounds the error of total; 1 when nothing is known"),
            "eigenvalues": eigen(CURVATURE, f"largest eigenvalues of {matrix}, best first"),
            "residuals": eigen(CURVATURE, "||A v - w v||: bounds the eigenvalue's error"),
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.sharpness import alignment

        vector = self._vector(context)
        pairs = context.eigenpairs(self.pairs)
        k, shape = min(self.k, len(pairs.values)), (self.k,)
        row = {"eigenvalues": pad(pairs.values[:k], shape), "residuals": pad(pairs.residuals[:k], shape)}
        row |= told(pairs)
        if vector is None or not k:
            unknown = {"cosines": np.full(shape, math.nan), "bounds": np.ones(shape)}
            return row | unknown | {"total": math.nan, "total_bound": 1.0}
        found = alignment(vector, pairs, k)
        row |= {"cosines": pad(found.cosines, shape), "bounds": pad(found.bounds, shape, 1.0)}
        return row | values_of(found, ("total", "total_bound"))

    def _vector(self, context: Context) -> torch.Tensor | None:
        """What is to be aligned; None before the first update. Raises `ValueError` without a batch."""
        if self.of != "update":
            objective = objective_of(context, "objective" if self.of == "gradient" else "batch", self.name)
            return gradient_of(context, objective)
        return None if context.previous is None else context.objective.theta() - context.previous.theta


@dataclass(frozen=True, kw_only=True)
class Updates(Instrument):
    """How far each parameter tensor moved, relative to its own size.

    Fields, one entry per tensor in the objective's order (the fields' labels are their names): ratio = update / weight,
    update (norm of the change), weight (norm of the tensor as it stands); steps, over how many steps of training the
    change went. nan and 0 steps at the first call.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Monitor, Trace, Updates
        >>> model = nn.Linear(2, 1)
        >>> objective = Objective(model, nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("updates.h5") as trace:
        ...     monitor = Monitor(objective, [Updates()], trace)
        ...     _ = monitor(0)
        ...     model.weight.data *= 2
        ...     found = monitor(1)["updates"].values
        >>> found["ratio"].round(3).tolist()
        [0.5, 0.0]
    """

    name: str = "updates"
    needs: ClassVar[frozenset[str]] = frozenset({"parameters", "previous"})

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        names = tuple(context.objective.names)
        tensors = partial(Field, (len(names),), "float64", labels=names, dims=("tensor",))
        return {
            "ratio": tensors("", "norm of the update / norm of the tensor"),
            "update": tensors("parameter", "norm of the tensor's change"),
            "weight": tensors("parameter", "norm of the tensor"),
            "steps": Field((), "int64", "step", "steps of training that the change went over"),
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        objective, previous = context.objective, context.previous
        objective.only_whole("norms of updates")
        theta = objective.theta()
        weight = _norms(objective.split(theta))
        update = np.full_like(weight, math.nan) if previous is None else _norms(objective.split(theta - previous.theta))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = update / weight
        steps = 0 if previous is None else context.step - previous.step
        return {"ratio": ratio, "update": update, "weight": weight, "steps": steps}


def _norms(pieces: list[torch.Tensor]) -> Array:
    """The norm of each piece, in float64, with one copy to the host."""
    import torch

    norms = [torch.linalg.vector_norm(piece, dtype=torch.float64) for piece in pieces]
    return np.asarray(torch.stack(norms).cpu().numpy())
