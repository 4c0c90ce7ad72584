"""Spectra: any `LinearOperator` in, a frozen result out that knows its cost and its error."""

from landscape.spectra.basis.place import Footprint
from landscape.spectra.blocks.heterogeneity import Heterogeneity, heterogeneity
from landscape.spectra.blocks.lockstep import blockwise
from landscape.spectra.blocks.spectra import BlockSpectra, BlockSpectrum, block_spectra
from landscape.spectra.callbacks import Callback, RunningEstimate
from landscape.spectra.condition import DENSE_LIMIT, condition_number
from landscape.spectra.density import density
from landscape.spectra.diagonal import diagonal
from landscape.spectra.eigsh import eigsh
from landscape.spectra.footprint import footprint
from landscape.spectra.functions.apply import Applied, apply
from landscape.spectra.functions.dimensions import effective_dimension, local_effective_dimension
from landscape.spectra.functions.logdet import logdet
from landscape.spectra.functions.results import SpectralSum
from landscape.spectra.functions.trace_of import trace_of
from landscape.spectra.krylov import lanczos
from landscape.spectra.results import ConditionNumber, Density, Eigenpairs, Estimate, Tridiagonal
from landscape.spectra.solve.inverse import inverse
from landscape.spectra.solve.solve import Solution, solve
from landscape.spectra.trace import trace

__all__ = [
    "DENSE_LIMIT",
    "Applied",
    "BlockSpectra",
    "BlockSpectrum",
    "Callback",
    "ConditionNumber",
    "Density",
    "Eigenpairs",
    "Estimate",
    "Footprint",
    "Heterogeneity",
    "RunningEstimate",
    "Solution",
    "SpectralSum",
    "Tridiagonal",
    "apply",
    "block_spectra",
    "blockwise",
    "condition_number",
    "density",
    "diagonal",
    "effective_dimension",
    "eigsh",
    "footprint",
    "heterogeneity",
    "inverse",
    "lanczos",
    "local_effective_dimension",
    "logdet",
    "solve",
    "trace",
    "trace_of",
]
