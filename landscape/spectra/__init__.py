"""Spectra: any `LinearOperator` in, a frozen result out that knows its cost and its error."""

from landscape.spectra.eigsh import eigsh
