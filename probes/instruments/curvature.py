"""Probes of a curvature matrix: its largest eigenvalues, trace, spectral density and condition number.

Each hands an operator to one algorithm of `landscape.spectra` and keeps what comes back, error bar and cost included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CONVERGED, CURVATURE, LIMITED_BY, MATVECS, TOLD, Instrument, pad, told, values_of
from probes.session import OPERATORS, Pairs
from probes.trace.layout import Field

if TYPE_CHECKING:
    from landscape.operators.linear import LinearOperator
    from landscape.spectra import Footprint

_TABLE_ROWS = 8  # of a condition number's table: more than there are now, so that later ones fit the same traces


@dataclass(frozen=True, kw_only=True)
class CurvatureInstrument(Instrument):
    """What the probes of a curvature matrix share.

    Attributes:
        operator: "hessian", "gauss-newton", "fisher" (labels drawn from the model) or "empirical-fisher".
        parameters: names or globs of the parameters to look at; None for all of the objective's.
        basis: where the vectors lie that an algorithm keeps, as in `landscape.spectra.eigsh`; changes no number.

    Besides the fields below each records noise (relative error of one product beyond rounding), checked (what the
    self-check of second derivatives found) and note (why numbers are zero), both texts.
    """

    operator: str = "hessian"
    parameters: Sequence[str] | None = None
    basis: Literal["auto", "device", "host", "disk"] = "auto"

    needs: ClassVar[frozenset[str]] = frozenset({"graph"})
    sizes: ClassVar[tuple[str, ...]] = ()  # the settings that say how many vectors are kept

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.parameters, str):  # one name is a sequence of one: the same settings, however it was typed
            object.__setattr__(self, "parameters", (self.parameters,))

    @override
    def footprint(self, context: Context) -> Footprint | None:
        from landscape import spectra

        asked = values_of(self, (*self.sizes, "basis"))
        return spectra.footprint(self._operator(context), **asked) if self.sizes else None

    def _operator(self, context: Context) -> LinearOperator:
        return context.operator(self.operator, self.parameters)

    def _size(self, context: Context) -> int:
        return self._operator(context).shape[0] if self.parameters is not None else context.objective.size

    @property
    def _of(self) -> str:
        return f"of {OPERATORS[self.operator]}"


@dataclass(frozen=True, kw_only=True)
class Spectrum(CurvatureInstrument):
    """The k largest ("LA"), smallest ("SA") or largest in absolute value ("LM") eigenvalues.

    Fields: values (k,) best first and residuals (k,), both in loss/parameter^2 (nan for pairs that were not
    found), converged, matvecs. `tol` bounds residual / |largest|. In a monitor each search starts from the vectors
    that the last one found, so that values depend on history, within `tol`; `warm=False` starts anew each time.
    `confirm=False` leaves out the proof that none was missed, most of a warm start's cost when little has moved.
    Probes of one step that ask for pairs of the same matrix share one search, and its matvecs. k beyond the number
    of parameters raises `ValueError` when the fields are declared.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Spectrum, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("spectrum.h5") as trace:
        ...     found = measure_once(objective, [Spectrum(k=2)], trace, step=0)["spectrum"].values
        >>> found["values"].round(3).tolist()
        [3.0, 1.0]
    """

    name: str = "spectrum"
    k: int = dataclasses.field(default=5, kw_only=False)
    which: Literal["LA", "SA", "LM"] = "LA"
    tol: float = 1e-3
    warm: bool = True
    confirm: bool = True
    sizes = ("k",)

    @property
    @override
    def pairs(self) -> Pairs:
        names = None if self.parameters is None else tuple(self.parameters)
        return Pairs(self.operator, names, self.which, self.k, self.tol, self.warm, self.confirm, self.basis)

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        n = self._size(context)
        if self.k > n:
            raise ValueError(f"{self.name}: k={self.k} eigenvalues of a matrix of size {n}; use k <= {n}")
        eigen = partial(Field, (self.k,), "float64", CURVATURE, dims=("eigenvalue",))
        end = {"LA": "largest", "SA": "smallest", "LM": "largest in absolute value"}[self.which]
        return {
            "values": eigen(f"eigenvalues {self._of}: the {end}, best first"),
            "residuals": eigen("||A v - w v||: bounds the eigenvalue's error"),
            "converged": CONVERGED,
            "matvecs": MATVECS,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        pairs = context.eigenpairs(self.pairs)
        row = values_of(pairs, ("values", "residuals", "converged", "matvecs"))
        return row | {name: pad(row[name], (self.k,)) for name in ("values", "residuals")} | told(pairs)


@dataclass(frozen=True, kw_only=True)
class CurvatureTrace(CurvatureInstrument):
    """The trace with its standard error.

    Fields: value and stderr in loss/parameter^2, matvecs, converged, method. `rtol` asks for
    stderr <= rtol * |value|, `matvecs` bounds the products; defaults are those of `landscape.spectra.trace`.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import CurvatureTrace, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("trace.h5") as trace:
        ...     found = measure_once(objective, [CurvatureTrace()], trace, step=0)["trace"].values
        >>> f"{found['value']:.3f} +- {found['stderr']:.3f}"
        '4.000 +- 0.000'
    """

    name: str = "trace"
    method: Literal["auto", "hutchinson", "hutch++", "xtrace"] = "auto"
    rtol: float | None = None
    matvecs: int | None = None

    @override
    def expected(self, context: Context) -> dict[str, float]:
        return {self.operator: min(self.matvecs or 120, self._size(context))}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        return {
            "value": Field((), "float64", CURVATURE, f"trace {self._of}"),
            "stderr": Field((), "float64", CURVATURE, "standard error of value; 0 when exact"),
            "matvecs": MATVECS,
            "converged": CONVERGED,
            "method": Field((), "S16", "", "the estimator that was asked for"),
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape import spectra

        estimate = spectra.trace(
            self._operator(context),
            **values_of(self, ("method", "rtol", "matvecs", "basis")),
            **values_of(context, ("generator", "callback")),
        )
        row = values_of(estimate, ("value", "stderr", "matvecs", "converged"))
        return row | {"method": self.method} | told(estimate)


@dataclass(frozen=True, kw_only=True)
class SpectralDensity(CurvatureInstrument):
    """The density of all eigenvalues as quadratures, one per random probe: drawn with any width later.

    Fields: nodes (probes, steps) in loss/parameter^2, weights (probes, steps) that sum to 1 per probe, n (the
    size of the matrix), rounding (error of the nodes, relative to the largest), matvecs. More steps than
    parameters are padded with weight 0.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import SpectralDensity, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("density.h5") as trace:
        ...     found = measure_once(objective, [SpectralDensity(probes=2, steps=3)], trace, step=0)["density"].values
        >>> f"{found['nodes'].shape}, up to {found['nodes'].max():.3f}"
        '(2, 3), up to 3.000'
    """

    name: str = "density"
    probes: int = 4
    steps: int = 64
    sizes = ("steps", "probes")

    @override
    def expected(self, context: Context) -> dict[str, float]:
        return {self.operator: self.probes * min(self.steps, self._size(context))}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        quadrature = partial(Field, (self.probes, self.steps), "float64", dims=("probe", "node"))
        return {
            "nodes": quadrature(CURVATURE, f"quadrature nodes of the density {self._of}, per probe"),
            "weights": quadrature("", "quadrature weights; 1 per probe in all"),
            "n": Field((), "int64", "", "size of the matrix: a weight w stands for w * n eigenvalues"),
            "rounding": Field((), "float64", "", "error of the nodes, relative to the largest: rounding and noise"),
            "matvecs": MATVECS,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape import spectra

        A = self._operator(context)
        shape, settings = (self.probes, self.steps), values_of(self, ("probes", "basis"))
        settings |= values_of(context, ("generator", "callback")) | {"steps": min(self.steps, A.shape[0])}
        density = spectra.density(A, **settings)
        rows = {"nodes": pad(density.nodes, shape, None), "weights": pad(density.weights, shape, 0.0)}
        return rows | values_of(density, ("n", "matvecs")) | {"rounding": density.noise} | told(density, A.noise)


@dataclass(frozen=True, kw_only=True)
class ConditionNumber(CurvatureInstrument):
    """max / min of |eigenvalue| above a threshold, and how much it depends on the threshold.

    Fields: kappa, largest, smallest, rank, threshold (absolute), limited_by (what cuts through the spectrum, such as
    float32; empty: nothing does), converged (False: kappa is a lower bound), matvecs, and a table: thresholds
    (relative to the largest), ranks and kappas, all (8,), nan and -1 beyond its end. `threshold` and `rank` are those
    of `landscape.spectra.condition_number`.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import ConditionNumber, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("condition.h5") as trace:
        ...     found = measure_once(objective, [ConditionNumber()], trace, step=0)["condition"].values
        >>> found["rank"], round(found["kappa"], 3)
        (2, 3.0)
    """

    name: str = "condition"
    threshold: float | None = None
    rank: int | None = None

    @override
    def expected(self, context: Context) -> dict[str, float]:
        """Products of a first measurement: the matrix is formed up to a size, beyond it there is an iteration."""
        from landscape.spectra.condition import DENSE_LIMIT, LANCZOS_STEPS

        n = self._size(context)
        return {self.operator: n if n <= DENSE_LIMIT else LANCZOS_STEPS}

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        table = partial(Field, (_TABLE_ROWS,), dims=("level",))
        return {
            "kappa": Field((), "float64", "", f"condition number {self._of}, above the threshold"),
            "largest": Field((), "float64", CURVATURE, "largest |eigenvalue|"),
            "smallest": Field((), "float64", CURVATURE, "smallest |eigenvalue| above the threshold"),
            "rank": Field((), "int64", "", "eigenvalues above the threshold"),
            "threshold": Field((), "float64", CURVATURE, "|eigenvalue| up to this counts as zero"),
            "limited_by": LIMITED_BY,
            "converged": Field((), "bool", "", "False: kappa and rank are lower bounds"),
            "matvecs": MATVECS,
            "thresholds": table("float64", "", "relative to the largest |eigenvalue|; nan: no entry"),
            "ranks": table("int64", "", "rank at each of the thresholds; -1: no entry"),
            "kappas": table("float64", "", "condition number at each of the thresholds; nan: no entry"),
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape import spectra

        settings = values_of(self, ("threshold", "rank", "basis"))
        found = spectra.condition_number(self._operator(context), **settings, callback=context.callback)
        thresholds, ranks, kappas = zip(*found.table[:_TABLE_ROWS], strict=True) if found.table else ((), (), ())
        names = ("kappa", "largest", "smallest", "rank", "threshold", "limited_by", "converged", "matvecs")
        return (
            values_of(found, names)
            | told(found)
            | {
                "thresholds": pad(thresholds, (_TABLE_ROWS,)),
                "ranks": pad(ranks, (_TABLE_ROWS,), -1.0).astype(np.int64),
                "kappas": pad(kappas, (_TABLE_ROWS,)),
            }
        )
