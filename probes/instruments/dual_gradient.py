"""Probes of the gradient in the dual norms of layers (arXiv 2502.07529, 2603.21191), and of the batch rule there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import Instrument
from probes.trace.layout import Field


@dataclass(frozen=True, kw_only=True)
class LayerNorms(Instrument):
    """A probe that measures each tensor in a norm of its own, and the loss above an infimum; see `DualGradient`."""

    norm: Literal["auto", "spectral", "sign", "euclidean", "rms", "column", "row", "operator"] = "auto"
    scale: float = 1.0
    layers: tuple[tuple[str, str, float], ...] = ()
    infimum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            layers=isinstance(self.layers, tuple | list) and all(map(_is_layer, self.layers)),
            infimum=math.isfinite(self.infimum),
        )

    def norms(self, context: Context) -> list[tuple[str, float]]:
        """Norm and scale of each tensor."""
        from landscape.norms import resolve

        found = []
        for name, p in zip(context.objective.names, context.objective.leaves(), strict=True):
            own = ((norm, scale) for layer, norm, scale in self.layers if fnmatchcase(name, layer))
            norm, scale = next(own, (self.norm, self.scale))
            try:
                found.append((resolve(norm, p.shape), scale))
            except ValueError as error:
                raise ValueError(f"{self.name}: {name}: {error}") from None
        for layer, _, _ in self.layers:
            if not any(fnmatchcase(name, layer) for name in context.objective.names):
                raise ValueError(f"{self.name}: no parameter is named {layer!r}: use a name or a glob of one")
        return found


@dataclass(frozen=True, kw_only=True)
class DualGradient(LayerNorms):
    """How large the gradient is for a solver that moves each layer in a norm of its own, as `solvers.Scion` does.

    Fields: dual, one entry per tensor in the objective's order (the fields' labels are their names), scale times the
    dual of its norm; total, their sum: the dual norm of the ball max_l ||W_l|| / scale_l <= 1, so lr * total is what
    an unconstrained step with the whole gradient lowers the loss by, to first order; gap = f - infimum; and mu = total
    / gap (nan where the gap is not positive): the smallest along a run is the largest mu for which ||grad f||_dual >=
    mu (f - f*) held on it. An infimum below f* makes mu smaller than it is.

    Attributes:
        norm: of the layers: "auto" (spectral for matrices and convolutions, rms for vectors) or one of
            `landscape.norms.KINDS`.
        scale: radius of the layers' balls.
        layers: (name or glob, norm, scale) of tensors with their own; the first that fits counts.
        infimum: f*, or a lower bound of it.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import DualGradient, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.L1Loss(), (eye(2), 9 * ones(2, 1)))
        >>> with Trace.create("dual-gradient.h5") as trace:
        ...     found = measure_once(objective, [DualGradient()], trace, step=0)["dual-gradient"].values
        >>> found["dual"].round(3).tolist(), round(found["total"], 3)
        ([0.5, 1.0], 1.5)
    """

    name: str = "dual-gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "gradient"})
    takes: ClassVar[Mapping[str, float]] = {"gradient": 1.0}  # the singular values of the layers are not counted

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        """Raises `ValueError` for a norm that does not fit a tensor."""
        names = tuple(context.objective.names)
        self.norms(context)
        slope, each = "loss/radius", "scale * dual norm of each tensor's gradient"
        return {
            "dual": Field((len(names),), "float64", slope, each, labels=names, dims=("tensor",)),
            "total": Field((), "float64", slope, "sum of dual: the dual norm of the whole gradient"),
            "gap": Field((), "float64", "loss", "f - infimum, on the objective's data"),
            "mu": Field((), "float64", "1/radius", "total / gap; nan where the gap is not positive"),
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:

        from landscape.norms import dual_norms

        context.objective.only_whole("a dual norm of the gradient")
        known = context.gradients()
        pieces = context.objective.unflatten(known.gradient)
        found = dual_norms((piece.detach() for piece in pieces.values()), self.norms(context))
        dual = np.asarray(found.cpu().numpy())
        total, gap = float(dual.sum()), known.loss - self.infimum
        return {"dual": dual, "total": total, "gap": gap, "mu": total / gap if gap > 0 else math.nan}


def _is_layer(layer: Any) -> bool:
    """Whether it is (glob of parameters, norm, scale)."""
    if not isinstance(layer, tuple | list) or [type(part) for part in layer[:2]] != [str, str]:
        return False
    return len(layer) == 3 and isinstance(layer[2], int | float) and 0 < layer[2] < math.inf
