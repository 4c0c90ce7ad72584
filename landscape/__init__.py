"""The mathematics: objective -> operators -> spectra. Prints nothing, writes nothing.

Names are imported when they are first used: what needs no network, such as `landscape.regularity`, imports no torch.
"""

from typing import TYPE_CHECKING

from landscape.exports import exports

if TYPE_CHECKING:
    from landscape.objective.data import DataChanged as DataChanged
    from landscape.objective.objective import Objective as Objective
    from landscape.objective.weight_norm import unfused_weight_norm as unfused_weight_norm
    from landscape.operators.blocks.block_diagonal import BlockDiagonal as BlockDiagonal
    from landscape.operators.check import WrongDerivatives as WrongDerivatives
    from landscape.operators.finite_difference import FiniteDifferenceHessian as FiniteDifferenceHessian
    from landscape.operators.fisher import EmpiricalFisher as EmpiricalFisher
    from landscape.operators.fisher import MonteCarloFisher as MonteCarloFisher
    from landscape.operators.functional_hessian import FunctionalHessian as FunctionalHessian
    from landscape.operators.gauss_newton import GaussNewton as GaussNewton
    from landscape.operators.hessian import Hessian as Hessian
    from landscape.operators.kronecker.ekfac import EKFAC as EKFAC
    from landscape.operators.kronecker.kfac import KFAC as KFAC
    from landscape.operators.linear import LinearOperator as LinearOperator
    from landscape.operators.matrix import MatrixOperator as MatrixOperator
    from landscape.operators.tangent_kernel import TangentKernel as TangentKernel

_HOME = {
    "BlockDiagonal": "landscape.operators.blocks.block_diagonal",
    "DataChanged": "landscape.objective.data",
    "EmpiricalFisher": "landscape.operators.fisher",
    "FiniteDifferenceHessian": "landscape.operators.finite_difference",
    "FunctionalHessian": "landscape.operators.functional_hessian",
    "GaussNewton": "landscape.operators.gauss_newton",
    "Hessian": "landscape.operators.hessian",
    "EKFAC": "landscape.operators.kronecker.ekfac",
    "KFAC": "landscape.operators.kronecker.kfac",
    "LinearOperator": "landscape.operators.linear",
    "MatrixOperator": "landscape.operators.matrix",
    "MonteCarloFisher": "landscape.operators.fisher",
    "Objective": "landscape.objective.objective",
    "TangentKernel": "landscape.operators.tangent_kernel",
    "unfused_weight_norm": "landscape.objective.weight_norm",
    "WrongDerivatives": "landscape.operators.check",
}
__getattr__, __dir__, __all__ = exports(__name__, _HOME)
