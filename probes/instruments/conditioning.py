"""The probe of Gauss-Newton conditioning (arXiv 2411.02139)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CURVATURE, LIMITED_BY, TOLD, Instrument, told, values_of
from probes.trace.layout import Field


@dataclass(frozen=True, kw_only=True)
class GaussNewtonConditioning(Instrument):
    """The condition number of the Gauss-Newton matrix, its whole spectrum, and its bounds where the network is linear.

    Fields: kappa, largest, smallest, rank, threshold (absolute), limited_by (what cuts through the spectrum, such as
    float32; empty: nothing does), neighbours (kappa at the ranks 2 and 1 below and 1
    above), size (of the Gram matrix), eigenvalues (ascending; empty where they did not fit), converged (False:
    kappa and rank are lower bounds), matvecs, linear, bound and loose_bound (inf where nothing is known), left and
    right: smallest and largest singular value of what stands behind and before each layer, W_L ... W_{l+1} and
    W_{l-1} ... W_1, for linear networks. Those are measured by their closed form, others by the smaller of the two
    Gram matrices; see `landscape.conditioning`.

    Attributes:
        loss_hessian: True for J^T (d2 loss / d outputs2) J, False as the paper for (1/N) J^T J.
        threshold: absolute; "paper" is 1e-8 / parameters; None is size * eps * largest.
        skip: of a linear network whose layers are W + skip I.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import GaussNewtonConditioning, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("gauss-newton.h5") as trace:
        ...     found = measure_once(objective, [GaussNewtonConditioning()], trace, step=0)["gauss-newton"].values
        >>> found["rank"], round(found["kappa"], 3)
        (2, 3.0)
    """

    name: str = "gauss-newton"
    loss_hessian: bool = False
    threshold: float | Literal["paper"] | None = None
    skip: float = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"graph"})

    @override
    def expected(self, context: Context) -> dict[str, float]:
        """A reverse pass per output of a sample, and the eigenvalues of the smaller Gram matrix."""
        from landscape.operators.tangent_kernel import TangentKernel

        kernel = TangentKernel(context.objective)
        size = min(kernel.shape[0], context.objective.size)
        return {"gradient": kernel.shape[0] / kernel.samples + 2.0, "eigenvalues": 2.0 * (size / 512) ** 3}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        from landscape.spectra.condition import NEIGHBOURS

        units = CURVATURE if self.loss_hessian else "output^2/parameter^2"
        what = "J^T (d2 loss / d outputs2) J" if self.loss_hessian else "(1/N) J^T J"
        near = ", ".join(f"{n:+d}" for n in NEIGHBOURS)
        extremes = "smallest and largest singular value of"
        by_layer = partial(Field, (None, 2), "float64", "", dims=("layer", "extreme"))
        return {
            "kappa": Field((), "float64", "", f"condition number of {what}, above the threshold"),
            "largest": Field((), "float64", units, "largest eigenvalue"),
            "smallest": Field((), "float64", units, "smallest eigenvalue above the threshold"),
            "rank": Field((), "int64", "", "eigenvalues above the threshold"),
            "threshold": Field((), "float64", units, "eigenvalues up to this count as zero"),
            "limited_by": LIMITED_BY,
            "neighbours": Field((3,), "float64", "", f"kappa at rank {near}", dims=("neighbour",)),
            "size": Field((), "int64", "", "rows of the Gram matrix whose eigenvalues were taken"),
            "eigenvalues": Field((None,), "float64", units, "of the Gram matrix, ascending", dims=("eigenvalue",)),
            "converged": Field((), "bool", "", "False: kappa and rank are lower bounds"),
            "matvecs": Field((), "int64", "products", "rows of J, or products where Lanczos was needed"),
            "linear": Field((), "bool", "", "whether the network is a product of its weights"),
            "bound": Field((), "float64", "", "upper bound of kappa, convex combination; inf where nothing is known"),
            "loose_bound": Field((), "float64", "", "cruder upper bound of kappa"),
            "left": by_layer(f"{extremes} W_L ... W_(l+1), by layer"),
            "right": by_layer(f"{extremes} W_(l-1) ... W_1, by layer"),
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.conditioning import gauss_newton, linear_network_of
        from landscape.spectra.condition import NEIGHBOURS

        objective = context.objective
        linear = None if self.loss_hessian else linear_network_of(objective, skip=self.skip, threshold=self.threshold)
        found = linear or gauss_newton(objective, threshold=self.threshold, loss_hessian=self.loss_hessian)
        eigenvalues = np.empty(0) if found.eigenvalues is None else found.eigenvalues.numpy()
        layers, bounds = () if linear is None else linear.layers, ("bound", "loose_bound")
        names = ("kappa", "largest", "smallest", "rank", "threshold", "limited_by", "converged", "matvecs")
        row = (
            values_of(found, names)
            | told(found, objective.noise, _one_output(found))
            | {
                "neighbours": np.array([found.neighbours.get(step, np.nan) for step in NEIGHBOURS]),
                "size": len(eigenvalues),
                "eigenvalues": eigenvalues,
                "linear": linear is not None,
                "left": np.array([(layer.left_smallest, layer.left_largest) for layer in layers]).reshape(-1, 2),
                "right": np.array([(layer.right_smallest, layer.right_largest) for layer in layers]).reshape(-1, 2),
            }
        )
        return row | (dict.fromkeys(bounds, np.inf) if linear is None else values_of(linear, bounds))


def _one_output(found: Any) -> str:
    if found.eigenvalues is None or len(found.eigenvalues) != 1:
        return ""
    return "the data has one output in all (as of a model that returns its own loss): rank and kappa are 1 by that"
