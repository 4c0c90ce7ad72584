"""The mathematics: objective -> operators -> spectra. Prints nothing, writes nothing."""

from landscape.objective.data import DataChanged
from landscape.objective.objective import Objective
from landscape.objective.weight_norm import unfused_weight_norm
from landscape.operators.check import WrongDerivatives
from landscape.operators.finite_difference import FiniteDifferenceHessian
from landscape.operators.fisher import EmpiricalFisher, MonteCarloFisher
from landscape.operators.functional_hessian import FunctionalHessian
from landscape.operators.gauss_newton import GaussNewton
from landscape.operators.hessian import Hessian
from landscape.operators.linear import LinearOperator
from landscape.operators.matrix import MatrixOperator
from landscape.operators.tangent_kernel import TangentKernel

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
    "WrongDerivatives",
    "unfused_weight_norm",
]
