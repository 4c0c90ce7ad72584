"""The mathematics: objective -> operators -> spectra. Prints nothing, writes nothing."""

from landscape.data import DataChanged
from landscape.finite_difference import FiniteDifferenceHessian
from landscape.fisher import EmpiricalFisher, MonteCarloFisher
from landscape.functional_hessian import FunctionalHessian
from landscape.gauss_newton import GaussNewton
from landscape.hessian import Hessian
from landscape.objective import Objective
from landscape.operators import LinearOperator, MatrixOperator
from landscape.tangent_kernel import TangentKernel

__all__ = [
    "DataChanged",
    "EmpiricalFisher",
    "FiniteDifferenceHessian",
    "FunctionalHessian",
    "GaussNewton",
    "Hessian",
    "LinearOperator",
    "MatrixOperator",
    "MonteCarloFisher",
    "Objective",
    "TangentKernel",
]
