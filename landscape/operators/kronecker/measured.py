"""Kronecker factors that are measured on an objective, anew when its model has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import torch
from typing_extensions import override

from landscape.objective.objective import Objective
from landscape.objective.state import Snapshot
from landscape.operators.check import Check
from landscape.operators.fisher import EmpiricalFisher, MonteCarloFisher
from landscape.operators.gauss_newton import GaussNewton, JacobianOperator
from landscape.operators.kronecker.blocks import Block, Spectrum
from landscape.operators.kronecker.collected import Collected, collected
from landscape.operators.kronecker.factored import Factored
from landscape.operators.kronecker.factors import Share, whole_sides
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.operator import KroneckerOperator
from landscape.operators.kronecker.passes import Passes, Terms, covered
from landscape.operators.kronecker.state import from_arrays
from landscape.operators.kronecker.words import MIXED, SIGNS, as_diagonal, repeated, tied
from landscape.randomness import drawn_seed

Curvature = Literal["gauss-newton", "fisher", "empirical-fisher"]
_ALLOWED = {
    "curvature": ("gauss-newton", "fisher", "empirical-fisher"),
    "share": ("expand", "reduce"),
    "terms": ("auto", "apart", "signs"),
}


class MeasuredOperator(KroneckerOperator):
    """The base of `KFAC` and `EKFAC`, which say what blocks they make of the factors.

    Attributes:
        seed: of labels and signs that are drawn: the same at each measurement.
    """

    def __init__(
        self,
        objective: Objective,
        curvature: Curvature = "gauss-newton",
        share: Share = "expand",
        separate: bool = False,
        limit: int = 8192,
        *,
        terms: Terms = "auto",
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        given = {"curvature": curvature, "share": share, "terms": terms}
        for name, value in given.items():
            if value not in _ALLOWED[name]:
                raise ValueError(f"{name} is one of {', '.join(map(repr, _ALLOWED[name]))}, not {value!r}")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        objective.only_whole(type(self).__name__)
        super().__init__(objective.size, objective.dtype, objective.device, memory=objective.memory)
        self.space.ranks = objective.ranks
        self.objective = objective
        self.curvature, self.share, self.separate, self.limit = curvature, share, separate, limit
        self.terms, self.samples = terms, samples
        self.seed: int = objective.ranks.shared(drawn_seed(generator), 0)
        self._exact = self._approximated(objective)
        self._found: Factored | None = None
        self._snapshot: Snapshot | None = None

    def _approximated(self, objective: Objective) -> JacobianOperator:
        """The matrix whose blocks these are."""
        if self.curvature == "fisher":
            fisher = MonteCarloFisher(objective, self.samples)
            fisher.seed = self.seed
            return fisher
        return GaussNewton(objective) if self.curvature == "gauss-newton" else EmpiricalFisher(objective)

    def _blocks(self, passes: Passes, found: Collected) -> list[Block]:
        raise NotImplementedError

    @property
    @override
    def checked(self) -> Check | None:
        return self._exact.checked

    @override
    def _measured_noise(self) -> float:
        return self.objective.noise

    @property
    @override
    def note(self) -> str | None:
        return None if self._found is None else "; ".join(self._found.notes)

    @override
    def _told(self) -> str:
        return f", {self.curvature}, {self.share}{', separate' if self.separate else ''}"

    def factored(self) -> Factored:
        """The blocks as the model stands: measured at first, and again when anything in it has changed."""
        fresh = self._found is not None and self._snapshot is not None and self._snapshot.holds()
        if self.objective.ranks.any(not fresh):
            self._found = None
            self._snapshot = self.objective.snapshot()
            self._found = self._measure()
        assert self._found is not None
        return self._found

    def _measure(self) -> Factored:
        self._exact._check()
        passes = Passes(self._exact, self.separate, self.terms, self.seed)
        with self._exact._explained(), torch.inference_mode(False), torch.enable_grad():
            found = collected(passes, self.share, self.limit)
            blocks = self._blocks(passes, found)
        notes = self._notes(found, list(found.factors))
        where = self.objective.slices, self.objective.size
        return Factored(blocks, *where, self.limit, notes, self.dtype, self.device)

    def _notes(self, found: Collected, layers: list[Layer]) -> tuple[str, ...]:
        notes = [self._exact.note] if isinstance(self._exact, GaussNewton) and self._exact.note else []
        for layer in layers:
            whole = whole_sides(layer, self.limit)
            if not whole[0]:
                notes.append(as_diagonal(layer, "output", layer.out))
            if not whole[1] and not layer.diagonal_input:
                notes.append(as_diagonal(layer, "input", layer.inner))
        notes += [*tied(layers), *repeated(found.calls)]
        return (*notes, *[SIGNS] * found.signs, *[MIXED] * found.mixed)

    @override
    def restrict(self, names: Iterable[str] | str) -> Self:
        """The diagonal block of some parameters, measured on its own."""
        other = type(self)(
            self.objective.restrict(names),
            self.curvature,
            self.share,
            self.separate,
            self.limit,
            terms=self.terms,
            samples=self.samples,
        )
        other.seed = self.seed
        other._exact = other._approximated(other.objective)
        return other

    @staticmethod
    def covered(objective: Objective) -> list[str]:
        """Names of the objective's parameters that there is a rule for: `restrict` takes them."""
        own = objective.alone()
        every = objective.ranks.gathered(covered(own))
        return [name for name in objective.names if all(name in found for found in every)]

    @staticmethod
    def from_state(state: Mapping[str, Any], device: torch.device | str = "cpu") -> StoredOperator:
        """The operator of the factors in a `state()`; it follows no model. Raises `ValueError` for other arrays."""
        return StoredOperator(from_arrays(state, torch.device(device)))


class StoredOperator(KroneckerOperator):
    """Factors as they were once measured."""

    def __init__(self, factored: Factored) -> None:
        super().__init__(factored.size, factored.dtype, factored.device)
        self._found = factored
        self.separable = not any(isinstance(block, Spectrum) for block in factored.blocks)

    def factored(self) -> Factored:
        """As they were."""
        return self._found

    @property
    @override
    def note(self) -> str | None:
        return "; ".join(self._found.notes)
