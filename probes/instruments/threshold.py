"""The probe of a whole end of the spectrum: all eigenvalues above c / lr, however many there are at each step."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import CONVERGED, CURVATURE, MATVECS, TOLD, told, values_of
from probes.instruments.curvature import CurvatureInstrument
from probes.session import Pairs
from probes.trace.layout import Field

if TYPE_CHECKING:
    from landscape.spectra import Eigenpairs, Footprint


@dataclass(frozen=True, kw_only=True)
class ThresholdSpectrum(CurvatureInstrument):
    """All eigenvalues above c / lr: with c = 2 the directions in which gradient descent overshoots (arXiv 2103.00065).

    Fields: count (how many are above), values, residuals and marginal, whose length is another at each step, threshold,
    more (True: there are more than the k that were kept, so that count is a lower bound), converged, matvecs. A value
    within tol * |largest| of the threshold is marginal: its side is not told. Values, residuals and threshold are in
    loss/parameter^2. The learning rate is the optimizer's at the step, or `lr`; with lr = 0 there is none above. In a
    monitor each search starts from the vectors that the last one found; `warm=False` starts anew each time. Momentum b
    is stable up to c = 2 (1 + b).

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import ThresholdSpectrum, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("threshold-spectrum.h5") as trace:
        ...     done = measure_once(objective, [ThresholdSpectrum(lr=1.0)], trace, step=0)
        ...     trace["threshold-spectrum"]["values"][0].round(3).tolist()
        [3.0]
    """

    name: str = "threshold-spectrum"
    c: float = dataclasses.field(default=2.0, kw_only=False)
    lr: float | None = None
    k: int = 100
    tol: float = 1e-3
    warm: bool = True

    @property
    @override
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"graph"} | ({"optimizer"} if self.lr is None else set()))

    @override
    def expected(self, context: Context) -> dict[str, float]:
        return {self.operator: Pairs(k=5, tol=self.tol).products}

    @override
    def footprint(self, context: Context) -> Footprint | None:
        from landscape import spectra

        return spectra.footprint(self._operator(context), k=min(self.k, self._size(context)), basis=self.basis)

    @override
    def fields(self, context: Context) -> dict[str, Field]:
        each = partial(Field, (None,), dims=("above",))
        return {
            "count": Field((), "int64", "", f"eigenvalues {self._of} above the threshold"),
            "values": each("float64", CURVATURE, "those eigenvalues and the marginal ones, largest first"),
            "residuals": each("float64", CURVATURE, "||A v - w v||: bounds the eigenvalue's error"),
            "marginal": each("bool", "", "too close to the threshold to tell on which side of it the eigenvalue lies"),
            "threshold": Field((), "float64", CURVATURE, f"{self.c:g} / learning rate"),
            "more": Field((), "bool", "", f"more than {self.k} are above: count is a lower bound"),
            "converged": CONVERGED,
            "matvecs": MATVECS,
            **TOLD,
        }

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        rate = self._rate(context)
        if rate == 0.0:
            empty: dict[str, Any] = dict.fromkeys(("values", "residuals", "marginal"), ())
            none = {"count": 0, "matvecs": 0, "converged": True, "more": False, "threshold": math.inf}
            return empty | none | told(None, noise=0.0, note="the learning rate is zero: there is no threshold")
        pairs = self._search(context, self.c / rate)
        count = int((pairs.values > self.c / rate).sum())
        row = values_of(pairs, ("values", "residuals", "marginal", "converged", "matvecs", "more"))
        return row | {"count": count, "threshold": self.c / rate} | told(pairs)

    def _search(self, context: Context, threshold: float) -> Eigenpairs:
        from landscape import spectra

        A = self._operator(context)
        pairs = spectra.eigsh(
            A,
            min(self.k, A.shape[0]),
            above=threshold,
            tol=self.tol,
            v0=context.memory.get("vectors") if self.warm else None,
            basis=self.basis,
            **values_of(context, ("generator", "callback")),
        )
        if self.warm and len(pairs.values):  # where there is none above, those before are still the best start
            context.memory["vectors"] = pairs.vectors.cpu()  # training may need the device's memory
        return pairs

    def _rate(self, context: Context) -> float:
        groups = [] if context.optimizer is None else context.optimizer.param_groups
        rates = {float(group["lr"]) for group in groups if "lr" in group} if self.lr is None else {self.lr}
        if len(rates) != 1:
            told = "no learning rate" if not rates else f"{len(rates)} learning rates, {min(rates):g} to {max(rates):g}"
            raise ValueError(f"{self.name}: the optimizer has {told}: give lr= for the threshold {self.c:g} / lr")
        return rates.pop()
