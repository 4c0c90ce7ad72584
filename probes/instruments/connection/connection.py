"""The probe of what lies between two networks: straight barrier, aligned barrier, a low path, and what it is like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CURVATURE, MATVECS, NOTE
from probes.instruments.connection.measurement import WAYS, Asked, Measurement
from probes.trace.layout import Field

ENDS = ("a", "b")


@dataclass(frozen=True, kw_only=True)
class Connection(Asked):
    """f on three ways between two networks, and how far it rises on each above the chord between its ends.

    The ways: straight, from a to b; aligned, from a to b with its units in the order of those of a; trained, a curve
    that is low. Both ends are measured with the running statistics that they were saved with, and what lies between
    with those of its own; where these give another loss at the ends, the difference is in the error.

    Fields: t (points,), 0 at a and 1 at b; straight, aligned and trained (points,); height and height_error (3,); ends
    (2,), f at both, and recomputed (2,), with running statistics of one pass; eigenvalue and eigenvalue_error
    (points,), the Hessian's largest along the path; dropout and dropout_error (2,), the mean loss of each end with a
    share of its hidden units dropped; distance (2,) from a to b, and to b aligned; converged, evaluations, gradients,
    matvecs, note. What was not asked for or is not possible is nan, and the note says why.

    Its settings are those of `Asked`.

    Example:
        >>> from torch import nn, ones, tensor
        >>> from landscape import Objective
        >>> from probes import Connection, Trace, measure_once
        >>> ring = lambda w, _: (w.square().sum(dim=-1) - 1).square().mean()  # 0 on a circle
        >>> f = Objective(nn.Linear(1, 2, bias=False), ring, ones(1, 1))
        >>> probe = Connection(through=[tensor([1.0, 0.0]), tensor([0.0, 1.0])], share=0.0, curvature=False)
        >>> with Trace.create("connection.h5") as trace:
        ...     found = measure_once(f, [probe], trace, step=0)["connection"].values
        >>> straight, aligned, trained = found["height"]
        >>> bool(straight > 0.2 and trained < 0.01)
        True
    """

    name: str = "connection"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    @override
    def expected(self, context: Context) -> dict[str, float]:
        trained = self.kind != "none"
        dropped = 2 * self.samples if self.share else 0
        products = 20.0 * self.points if self.curvature and trained else 0.0
        return {
            "value": float((4 if trained else 2) * self.points + dropped),
            "gradient": float(self.steps if trained else 0),
            "hessian": products,
        }

    @override
    def fields(self, context: Context) -> Mapping[str, Field]:
        context.objective.only_whole("a connection")
        if len(self._stations) != 2:
            raise ValueError(f"{self.name}: there are two networks to connect, not {len(self._stations)}")
        on_way = partial(Field, (self.points,), "float64", dims=("t",))
        ways = partial(Field, (3,), "float64", "loss", labels=WAYS, dims=("way",))
        ends = partial(Field, (2,), "float64", "loss", labels=ENDS, dims=("end",))
        return {
            "t": on_way("", "0 at a, 1 at b"),
            "straight": on_way("loss", "f on the straight line"),
            "aligned": on_way("loss", "f on the line to b with its units in the order of those of a"),
            "trained": on_way("loss", "f on the path that was trained to be low"),
            "height": ways("how far f rises above the chord between the ends"),
            "height_error": ways("rounding, and what recomputed running statistics change at the ends"),
            "ends": ends("f of each network, with the running statistics that it was saved with"),
            "recomputed": ends("f of each network, with those of one pass over the data"),
            "eigenvalue": on_way(CURVATURE, "largest eigenvalue of the Hessian along the path"),
            "eigenvalue_error": on_way(CURVATURE, "residual: each is within that of an eigenvalue"),
            "dropout": ends("mean loss with a share of the hidden units dropped, the others scaled"),
            "dropout_error": ends("standard error of the mean"),
            "distance": Field(
                (2,), "float64", "parameter", "from a to b, and to b aligned", ("b", "b aligned"), ("to",)
            ),
            "converged": Field((), "bool", "", "whether all eigenvalues reached the asked accuracy"),
            "evaluations": Field((), "int64", "evaluations", "points at which f was evaluated"),
            "gradients": Field((), "int64", "gradients", "that the path was trained with"),
            "matvecs": MATVECS,
            "note": NOTE,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        return Measurement(self, context, *self._stations).row()
