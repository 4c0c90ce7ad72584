"""Probes of a curvature matrix: its largest eigenvalues, trace, spectral density and condition number.

Each hands an operator to one algorithm of `landscape.spectra` and keeps what comes back, error bar and cost
included. Importing this module does not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from probes.context import OPERATORS, Context, Pairs, check_operator
from probes.schedules import Schedule, as_schedule
from probes.trace.layout import Array, Field

if TYPE_CHECKING:
    from landscape.operators.linear import LinearOperator

_UNITS = "loss/parameter^2"
_CONVERGED = Field((), "bool", "", "whether the asked accuracy was reached")
_MATVECS = Field((), "int64", "products", "matrix-vector products made")
_TABLE_ROWS = 8  # of a condition number's table: more than there are now, so that later ones fit the same traces


@dataclass(frozen=True, kw_only=True)
class CurvatureProbe:
    """What the probes of a curvature matrix share.

    Attributes:
        operator: "hessian", "gauss-newton", "fisher" (labels drawn from the model) or "empirical-fisher".
        parameters: names or globs of the parameters to look at; None for all of the objective's.
        every: measure at the steps that it divides, or a schedule.
        name: of the records in the trace; give another one to measure the same thing in two ways.
    """

    operator: str = "hessian"
    parameters: Sequence[str] | None = None
    every: int | Schedule = 1
    name: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"graph"})
    default_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_operator(self.operator)
        as_schedule(self.every)
        if isinstance(self.parameters, str):
            object.__setattr__(self, "parameters", (self.parameters,))
        if not self.name:
            object.__setattr__(self, "name", self.default_name)

    def settings(self) -> dict[str, Any]:
        """Class and settings, without the schedule: what must be equal for records to belong together."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("name", "every")]
        return {"probe": type(self).__name__} | {name: getattr(self, name) for name in names}

    def _operator(self, context: Context) -> LinearOperator:
        return context.operator(self.operator, self.parameters)

    def _size(self, context: Context) -> int:
        return self._operator(context).shape[0] if self.parameters is not None else context.objective.size

    @property
    def _of(self) -> str:
        return f"of {OPERATORS[self.operator]}"


@dataclass(frozen=True)
class Spectrum(CurvatureProbe):
    """The k largest ("LA"), smallest ("SA") or largest in absolute value ("LM") eigenvalues.

    Fields: values (k,) best first and residuals (k,), both in loss/parameter^2 (nan for pairs that were not
    found), converged, matvecs. `tol` bounds residual / |largest|. In a monitor each search starts from the vectors
    that the last one found, so that values depend on history, within `tol`; `warm=False` starts anew each time.
    `confirm=False` leaves out the proof that none was missed, most of a warm start's cost when little has moved.
    Probes of one step that ask for pairs of the same matrix share one search, and its matvecs. k beyond the number
    of parameters raises `ValueError` when the fields are declared.
    """

    k: int = 5
    which: Literal["LA", "SA", "LM"] = dataclasses.field(default="LA", kw_only=True)
    tol: float = dataclasses.field(default=1e-3, kw_only=True)
    warm: bool = dataclasses.field(default=True, kw_only=True)
    confirm: bool = dataclasses.field(default=True, kw_only=True)
    default_name: ClassVar[str] = "spectrum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        if self.which not in ("LA", "SA", "LM"):
            raise ValueError(f"which is 'LA', 'SA' or 'LM', not {self.which!r}")
        if not self.tol > 0:
            raise ValueError(f"tol must be positive, not {self.tol}")

    @property
    def pairs(self) -> Pairs:
        """The search that it shares with other probes."""
        names = None if self.parameters is None else tuple(self.parameters)
        return Pairs(self.operator, names, self.which, self.k, self.tol, self.warm, self.confirm)

    def expected(self, context: Context) -> dict[str, float]:
        """Products of a first measurement."""
        return {self.operator: self.pairs.products}

    def fields(self, context: Context) -> dict[str, Field]:
        """The fields that the class names."""
        n = self._size(context)
        if self.k > n:
            raise ValueError(f"{self.name}: k={self.k} eigenvalues of a matrix of size {n}; use k <= {n}")
        end = {"LA": "largest", "SA": "smallest", "LM": "largest in absolute value"}[self.which]
        return {
            "values": Field((self.k,), "float64", _UNITS, f"eigenvalues {self._of}: the {end}, best first"),
            "residuals": Field((self.k,), "float64", _UNITS, "||A v - w v||: bounds the eigenvalue's error"),
            "converged": _CONVERGED,
            "matvecs": _MATVECS,
        }

    def measure(self, context: Context) -> dict[str, Any]:
        """One value per field."""
        pairs = context.eigenpairs(self.pairs)
        return {
            "values": _padded(pairs.values, (self.k,), np.nan),
            "residuals": _padded(pairs.residuals, (self.k,), np.nan),
            "converged": bool(pairs.converged),
            "matvecs": int(pairs.matvecs),
        }


@dataclass(frozen=True, kw_only=True)
class CurvatureTrace(CurvatureProbe):
    """The trace with its standard error.

    Fields: value and stderr in loss/parameter^2, matvecs, converged, method. `rtol` asks for
    stderr <= rtol * |value|, `matvecs` bounds the products; defaults are those of `landscape.spectra.trace`.
    """

    method: Literal["auto", "hutchinson", "hutch++", "xtrace"] = "auto"
    rtol: float | None = None
    matvecs: int | None = None
    default_name: ClassVar[str] = "trace"

    def expected(self, context: Context) -> dict[str, float]:
        """Products of a first measurement."""
        return {self.operator: min(self.matvecs or 120, self._size(context))}

    def fields(self, context: Context) -> dict[str, Field]:
        """The fields that the class names."""
        return {
            "value": Field((), "float64", _UNITS, f"trace {self._of}"),
            "stderr": Field((), "float64", _UNITS, "standard error of value; 0 when exact"),
            "matvecs": _MATVECS,
            "converged": _CONVERGED,
            "method": Field((), "S16", "", "the estimator that was asked for"),
        }

    def measure(self, context: Context) -> dict[str, Any]:
        """One value per field."""
        from landscape import spectra

        estimate = spectra.trace(
            self._operator(context),
            method=self.method,
            rtol=self.rtol,
            matvecs=self.matvecs,
            generator=context.generator,
            callback=context.callback,
        )
        return {
            "value": float(estimate.value),
            "stderr": float(estimate.stderr),
            "matvecs": int(estimate.matvecs),
            "converged": bool(estimate.converged),
            "method": self.method,
        }


@dataclass(frozen=True, kw_only=True)
class SpectralDensity(CurvatureProbe):
    """The density of all eigenvalues as quadratures, one per random probe: drawn with any width later.

    Fields: nodes (probes, steps) in loss/parameter^2, weights (probes, steps) that sum to 1 per probe, n (the
    size of the matrix), matvecs. More steps than parameters are padded with weight 0.
    """

    probes: int = 4
    steps: int = 64
    default_name: ClassVar[str] = "density"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes < 1 or self.steps < 1:
            raise ValueError(f"probes and steps must be at least 1, not {self.probes} and {self.steps}")

    def expected(self, context: Context) -> dict[str, float]:
        """Products of a first measurement."""
        return {self.operator: self.probes * min(self.steps, self._size(context))}

    def fields(self, context: Context) -> dict[str, Field]:
        """The fields that the class names."""
        shape = (self.probes, self.steps)
        return {
            "nodes": Field(shape, "float64", _UNITS, f"quadrature nodes of the density {self._of}, per probe"),
            "weights": Field(shape, "float64", "", "quadrature weights; 1 per probe in all"),
            "n": Field((), "int64", "", "size of the matrix: a weight w stands for w * n eigenvalues"),
            "matvecs": _MATVECS,
        }

    def measure(self, context: Context) -> dict[str, Any]:
        """One value per field."""
        from landscape import spectra

        A = self._operator(context)
        density = spectra.density(
            A,
            probes=self.probes,
            steps=min(self.steps, A.shape[0]),
            generator=context.generator,
            callback=context.callback,
        )
        shape = (self.probes, self.steps)
        return {
            "nodes": _padded(density.nodes, shape, None),
            "weights": _padded(density.weights, shape, 0.0),
            "n": int(density.n),
            "matvecs": int(density.matvecs),
        }


@dataclass(frozen=True, kw_only=True)
class ConditionNumber(CurvatureProbe):
    """max / min of |eigenvalue| above a threshold, and how much it depends on the threshold.

    Fields: kappa, largest, smallest, rank, threshold (absolute), converged (False: kappa is a lower bound),
    matvecs, and a table: thresholds (relative to the largest), ranks and kappas, all (8,), nan and -1 beyond
    its end. `threshold` and `rank` are those of `landscape.spectra.condition_number`.
    """

    threshold: float | None = None
    rank: int | None = None
    default_name: ClassVar[str] = "condition"

    def expected(self, context: Context) -> dict[str, float]:
        """Products of a first measurement: the matrix is formed up to a size, beyond it there is an iteration."""
        from landscape.spectra.condition import DENSE_LIMIT, LANCZOS_STEPS

        n = self._size(context)
        return {self.operator: n if n <= DENSE_LIMIT else LANCZOS_STEPS}

    def fields(self, context: Context) -> dict[str, Field]:
        """The fields that the class names."""
        table = (_TABLE_ROWS,)
        return {
            "kappa": Field((), "float64", "", f"condition number {self._of}, above the threshold"),
            "largest": Field((), "float64", _UNITS, "largest |eigenvalue|"),
            "smallest": Field((), "float64", _UNITS, "smallest |eigenvalue| above the threshold"),
            "rank": Field((), "int64", "", "eigenvalues above the threshold"),
            "threshold": Field((), "float64", _UNITS, "|eigenvalue| up to this counts as zero"),
            "converged": Field((), "bool", "", "False: kappa and rank are lower bounds"),
            "matvecs": _MATVECS,
            "thresholds": Field(table, "float64", "", "relative to the largest |eigenvalue|; nan: no entry"),
            "ranks": Field(table, "int64", "", "rank at each of the thresholds; -1: no entry"),
            "kappas": Field(table, "float64", "", "condition number at each of the thresholds; nan: no entry"),
        }

    def measure(self, context: Context) -> dict[str, Any]:
        """One value per field."""
        from landscape import spectra

        found = spectra.condition_number(self._operator(context), threshold=self.threshold, rank=self.rank)
        table = list(found.table)[:_TABLE_ROWS]
        return {
            "kappa": float(found.kappa),
            "largest": float(found.largest),
            "smallest": float(found.smallest),
            "rank": int(found.rank),
            "threshold": float(found.threshold),
            "converged": bool(found.converged),
            "matvecs": int(found.matvecs),
            "thresholds": _padded([row[0] for row in table], (_TABLE_ROWS,), np.nan),
            "ranks": _padded([row[1] for row in table], (_TABLE_ROWS,), -1.0).astype(np.int64),
            "kappas": _padded([row[2] for row in table], (_TABLE_ROWS,), np.nan),
        }


def _padded(values: Any, shape: tuple[int, ...], fill: float | None) -> Array:
    """Host values in the leading corner of an array; the rest is `fill`, or each row's last value."""
    array = np.asarray(values, dtype=np.float64)
    width = [(0, full - n) for n, full in zip(array.shape, shape, strict=True)]
    if fill is None:
        return np.pad(array, width, mode="edge")
    return np.pad(array, width, constant_values=fill)


PROBES: dict[str, type[CurvatureProbe]] = {
    probe.default_name: probe for probe in (Spectrum, CurvatureTrace, SpectralDensity, ConditionNumber)
}
