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
from landscape.spectra.krylov import lanczos
from landscape.spectra.results import ConditionNumber, Density, Eigenpairs, Estimate, Tridiagonal
from landscape.spectra.solve.solve import Solution, solve
from landscape.spectra.trace import trace

__all__ = [
    "DENSE_LIMIT",
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
    "Tridiagonal",
    "block_spectra",
    "blockwise",
    "condition_number",
    "density",
    "diagonal",
    "eigsh",
    "footprint",
    "heterogeneity",
    "lanczos",
    "solve",
    "trace",
]
