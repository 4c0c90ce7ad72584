"""The blocks of the matrix: B (x) A of a layer, and Q diag(S) Q^T with Q the Kronecker product of eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from torch import Tensor

from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.sides import Basis, Side
from landscape.precision import accurate


class Block(Protocol):
    """What K has on the parameters of one layer."""

    @property
    def layer(self) -> Layer:
        """Whose parameters."""
        ...

    def product(self, X: Tensor) -> Tensor:
        """With `(k, groups, out, inner)`."""
        ...

    @property
    def spectrum(self) -> Spectrum:
        """Its eigenvalues and eigenvectors."""
        ...

    @property
    def trace(self) -> float:
        """Of the block."""
        ...


@dataclass(frozen=True)
class Product:
    """B (x) A."""

    layer: Layer
    B: Side
    A: Side

    def product(self, X: Tensor) -> Tensor:
        """B X A."""
        return self.A.from_right(self.B.from_left(X))

    @cached_property
    def spectrum(self) -> Spectrum:
        """By those of the factors."""
        B, A = self.B.eigen(), self.A.eigen()
        return Spectrum(self.layer, B, A, B.values.unsqueeze(2) * A.values.unsqueeze(1))

    @property
    def trace(self) -> float:
        """tr B tr A."""
        return float((self.B.trace * self.A.trace).sum())


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors Q_B (x) Q_A with their eigenvalues `(groups, out, inner)` float64."""

    layer: Layer
    B: Basis
    A: Basis
    values: Tensor = field(repr=False)

    def apply(self, values: Tensor, X: Tensor) -> Tensor:
        """Q diag(values) Q^T on `(k, groups, out, inner)`."""
        Q_B, Q_A = self.B.vectors, self.A.vectors
        Y = X if Q_B is None else Q_B.mT @ X
        Y = (Y if Q_A is None else Y @ Q_A) * values.to(X.device, X.dtype)
        Y = Y if Q_B is None else Q_B @ Y
        return Y if Q_A is None else Y @ Q_A.mT

    def product(self, X: Tensor) -> Tensor:
        """With the block itself."""
        return self.apply(self.values, X)

    @property
    def spectrum(self) -> Spectrum:
        """Itself."""
        return self

    @property
    def trace(self) -> float:
        """The sum of the eigenvalues."""
        return float(accurate(self.values).sum())
