"""EKFAC: the eigenvectors of K-FAC's factors with the exact diagonal in that basis (arXiv 1806.03884)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Self

from typing_extensions import override

from landscape.operators.kronecker.blocks import Block, Product, Spectrum
from landscape.operators.kronecker.collected import Collected
from landscape.operators.kronecker.corrected import corrected
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.measured import MeasuredOperator
from landscape.operators.kronecker.passes import Passes
from landscape.operators.kronecker.sides import Side


class EKFAC(MeasuredOperator):
    """Q diag(S) Q^T in each layer's block, `(n, n)`, positive semi-definite.

    Q are the eigenvectors of K-FAC's B (x) A, and S the exact diagonal in that basis: the mean of squared gradients of
    whole samples (1806.03884, equation 10), for which the data is passed a second time. So its trace is that of the
    exact block, and no other diagonal in this basis is nearer to it, K-FAC's included. Arguments, errors and what is
    said of large sides are as for `KFAC`; `inverse` has no "factored" method.

    Example:
        >>> import torch
        >>> from landscape import EKFAC, GaussNewton, Objective
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        >>> f = Objective(model, torch.nn.CrossEntropyLoss(), (torch.randn(8, 2), torch.arange(8) % 2))
        >>> exact = float(GaussNewton(f).to_dense().trace())
        >>> abs(EKFAC(f).trace() - exact) < 1e-4 * exact
        True
    """

    separable = False

    @override
    def _blocks(self, passes: Passes, found: Collected) -> list[Block]:
        spectra: dict[Layer, Spectrum] = {
            layer: Product(layer, Side(B), Side(A)).spectrum for layer, (B, A) in found.factors.items()
        }
        # a block that is exact has the right eigenvalues
        values = corrected(passes, {layer: basis for layer, basis in spectra.items() if not layer.exact})
        return [replace(spectrum, values=values.get(layer, spectrum.values)) for layer, spectrum in spectra.items()]

    @override
    def restrict(self, names: Iterable[str] | str) -> Self:
        """The diagonal block of whole layers. Raises `ValueError` for a part of one: its basis would be another."""
        other = super().restrict(names)
        chosen = {*other.objective.names}
        for block in self.factored().blocks:
            if chosen & {*block.layer.names} and not chosen >= {*block.layer.names}:
                raise ValueError(f"{block.layer.label} have one basis: restrict to all of them, or take separate=True")
        return other
