"""Probes of a network's layers: the spectrum of each diagonal block of a curvature matrix, and how unlike they are.

All layers are measured at once, see `landscape.spectra.block_spectra`; probes of a step that ask for the same share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CONVERGED, CURVATURE, MATVECS, TOLD, pad, told, values_of
from probes.instruments.curvature import CurvatureInstrument
from probes.seeds import derive_seed
from probes.trace.layout import Field

if TYPE_CHECKING:
    from landscape import BlockDiagonal
    from landscape.spectra import BlockSpectra

_SHARE = 0.3  # of a product with the whole matrix, that of a layer in the mean: later ones need less of the graph


@dataclass(frozen=True, kw_only=True)
class OfLayers(CurvatureInstrument):
    """What the probes of all layers share.

    Attributes:
        by, heads: what a layer is, as in `landscape.BlockDiagonal`: "layer", "parameter", or how many parts of the
            names tell two apart (2: h.0.attn and h.0.mlp are h.0); whether attention goes by heads.
        tol: of the largest eigenvalues.
        probes, steps: of the densities.
    """

    by: Literal["layer", "parameter"] | int = "layer"
    heads: Literal["auto"] | int | None = None
    tol: float = 1e-3
    probes: int = 4
    steps: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("by", "heads"):
            value = getattr(self, name)
            self._check(**{name: isinstance(value, str | None) or value >= 1})

    @property
    def _largest(self) -> int:
        """How many eigenvalues of each block."""
        return 1

    @override
    def expected(self, context: Context) -> dict[str, float]:
        ends = 1 if self.operator != "hessian" else 2
        products = self.probes * self.steps + (12 + 2 * self._largest) * ends
        return {self.operator: products * max(1.0, _SHARE * len(self._diagonal(context).layout))}

    def _diagonal(self, context: Context) -> BlockDiagonal:
        return context.blocks(self.operator, self.parameters, self.by, self.heads)

    def _spectra(self, context: Context) -> BlockSpectra:
        """What the probes of a step that have the same settings find together."""
        from torch import Generator

        from landscape.spectra import block_spectra

        settings = values_of(self, ("tol", "probes", "steps")) | {"k": self._largest}
        key = ("block spectra", self.operator, self.parameters, self.by, self.heads, *settings.values())
        generator = Generator().manual_seed(derive_seed(context.seed, *key, context.step))
        settings |= {"basis": self.basis, "generator": generator, "callback": context.callback}
        found: BlockSpectra = context.once(key, lambda: block_spectra(self._diagonal(context), **settings))
        return found


@dataclass(frozen=True, kw_only=True)
class ByLayer(OfLayers):
    """The spectrum of every layer by itself: its block of the matrix, the others held fixed.

    Fields, one entry per layer (the fields' labels are their names): values and residuals (layers, k), the k largest
    eigenvalues, nan where a layer has fewer; smallest and smallest_residual, nan for matrices without negative
    eigenvalues; trace and frobenius (the norm) with their standard errors; stable_rank and effective_rank with theirs;
    size; nodes and weights (layers, probes, steps), the density; products, of each layer's block; converged and
    matvecs, of all together.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import ByLayer, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("layers.h5") as trace:
        ...     found = measure_once(objective, [ByLayer(by="parameter")], trace, step=0)["by-layer"].values
        >>> found["values"].round(3).tolist(), list(found["size"])  # of the weight and of the bias
        ([[1.0], [2.0]], [2, 1])
    """

    name: str = "by-layer"
    k: int = 1

    @property
    @override
    def _largest(self) -> int:
        return self.k

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        names = tuple(self._diagonal(context).layout)
        each = partial(Field, (len(names),), "float64", labels=names, dims=("layer",))
        eigen = partial(Field, (len(names), self.k), "float64", CURVATURE, labels=names, dims=("layer", "eigenvalue"))
        shape, dims = (len(names), self.probes, self.steps), ("layer", "probe", "node")
        quadrature = partial(Field, shape, "float64", labels=names, dims=dims)
        count = partial(Field, (len(names),), "int64", labels=names, dims=("layer",))
        return {
            "values": eigen(f"largest eigenvalues of the layer's block {self._of}, best first"),
            "residuals": eigen("||A v - w v||: bounds the eigenvalue's error"),
            "smallest": each(CURVATURE, "smallest eigenvalue; nan where none is negative by construction"),
            "smallest_residual": each(CURVATURE, "bounds the error of smallest"),
            "trace": each(CURVATURE, "trace of the block"),
            "trace_stderr": each(CURVATURE, "standard error of trace"),
            "frobenius": each(CURVATURE, "root of the sum of all squared eigenvalues"),
            "frobenius_stderr": each(CURVATURE, "standard error of frobenius"),
            "stable_rank": each("", "(frobenius / largest |eigenvalue|)^2"),
            "stable_rank_stderr": each("", "standard error of stable_rank"),
            "effective_rank": each("", "exp of the entropy of |eigenvalues| / their sum"),
            "effective_rank_stderr": each("", "standard error of effective_rank, and what fewer steps change"),
            "size": count("", "parameters of the layer"),
            "nodes": quadrature(CURVATURE, "quadrature nodes of the density, per probe"),
            "weights": quadrature("", "quadrature weights; 1 per probe in all"),
            "products": count("products", "matrix-vector products made with the layer's block"),
            "converged": CONVERGED,
            "matvecs": MATVECS,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        found = self._spectra(context)
        blocks = list(found.blocks.values())
        bottoms = [one.bottom for one in blocks]
        norms = np.array([max(0.0, one.frobenius.value) for one in blocks]) ** 0.5
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.array([one.frobenius.stderr for one in blocks]) / (2 * norms)
        row: dict[str, Any] = {
            "values": np.stack([pad(one.top.values, (self.k,)) for one in blocks]),
            "residuals": np.stack([pad(one.top.residuals, (self.k,)) for one in blocks]),
            "smallest": [np.nan if one is None else float(one.values[0]) for one in bottoms],
            "smallest_residual": [np.nan if one is None else float(one.residuals[0]) for one in bottoms],
            "frobenius": norms,
            "frobenius_stderr": np.where(norms > 0, errors, 0.0),
            "size": [one.n for one in blocks],
            "nodes": np.stack([pad(one.density.nodes, (self.probes, self.steps), None) for one in blocks]),
            "weights": np.stack([pad(one.density.weights, (self.probes, self.steps), 0.0) for one in blocks]),
            "products": [one.matvecs for one in blocks],
        }
        for name in ("trace", "stable_rank", "effective_rank"):
            row[name] = [getattr(one, name).value for one in blocks]
            row[f"{name}_stderr"] = [getattr(one, name).stderr for one in blocks]
        return row | values_of(found, ("converged", "matvecs")) | told(found)


@dataclass(frozen=True, kw_only=True)
class BlockHeterogeneity(OfLayers):
    """How unlike the layers' spectra are: Jensen-Shannon distances between their densities (2402.16788).

    Fields: distances and stderr (layers, layers), floor (layers,), what a layer is apart from itself by two halves of
    its probes; mean (JS0) and mean_stderr over all pairs, mean_floor; sigma, low and high of the common bins;
    converged, matvecs. `normalise="tenth"` divides each layer's eigenvalues by its own 10th largest; layers without one
    are nan.
    `sigma` and `bins` are those of `landscape.spectra.heterogeneity`.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import BlockHeterogeneity, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("unlike.h5") as trace:
        ...     probe = BlockHeterogeneity(by="parameter")
        ...     found = measure_once(objective, [probe], trace, step=0)["heterogeneity"].values
        >>> round(float(found["mean"]), 3), round(float(found["sigma"]), 3)  # eigenvalues 1 and 1, and 2
        (1.0, 0.01)
    """

    name: str = "heterogeneity"
    normalise: Literal["none", "tenth"] = "none"
    sigma: float | None = None
    bins: int = 512

    @property
    @override
    def _largest(self) -> int:
        return 10 if self.normalise == "tenth" else 1

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        names = tuple(self._diagonal(context).layout)
        if len(names) < 2:
            raise ValueError(f"{self.name}: there is one layer, {names[0]}, and nothing to compare it with")
        pairs = partial(Field, (len(names), len(names)), "float64", labels=names, dims=("layer", "other"))
        each = partial(Field, (len(names),), "float64", labels=names, dims=("layer",))
        units = CURVATURE if self.normalise == "none" else ""
        number = partial(Field, (), "float64")
        return {
            "distances": pairs("", f"Jensen-Shannon distance of the densities {self._of}, base 2: 0 to 1"),
            "stderr": pairs("", "standard error of distances over the probes"),
            "floor": each("", "distance of the layer to itself, from two halves of the probes"),
            "mean": number("", "JS0, the mean of distances over all pairs"),
            "mean_stderr": number("", "standard error of mean"),
            "mean_floor": number("", "mean of floor"),
            "sigma": number(units, "width of the Gaussian that nodes are smoothed with"),
            "low": number(units, "where the bins begin"),
            "high": number(units, "where they end"),
            "converged": CONVERGED,
            "matvecs": MATVECS,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        from landscape.spectra import heterogeneity

        spectra = self._spectra(context)
        found = heterogeneity(spectra, **values_of(self, ("normalise", "sigma", "bins")))
        row = values_of(found, ("mean_floor", "sigma", "low", "high")) | values_of(spectra, ("converged", "matvecs"))
        row |= {name: getattr(found, name).numpy() for name in ("distances", "stderr", "floor")}
        out = f"left out: {', '.join(found.left_out)}" if found.left_out else ""
        return row | {"mean": found.mean[0], "mean_stderr": found.mean[1]} | told(spectra, note=out)
