"""Solvers of second order: models of the loss with its curvature, on the whole space or on parts of it; one file each.

A new one derives from `newton.NewtonSolver`, which has the loop, and implements `_model(point)`, the step as a function
of the solver's constant, `_point` if it looks at a subspace, and hands over an `acceptance.Acceptance`: `Doubling`,
`Ratio`, `Fixed` or a rule of its own, which says when a step is taken.
"""

from solvers.second_order.coordinate_descent import CoordinateDescent
from solvers.second_order.cubic import CubicStep, solve_cubic
from solvers.second_order.cubic_krylov import solve_cubic_krylov
from solvers.second_order.cubic_newton import CubicNewton
from solvers.second_order.damped_newton import DampedNewton
from solvers.second_order.gradient_normalized import GradientNormalizedNewton
from solvers.second_order.gradient_regularized import GradientRegularizedNewton
from solvers.second_order.lazy_cubic_newton import LazyCubicNewton
from solvers.second_order.margins import LinearModel, NonConvex, Ridge, linear_model
from solvers.second_order.newton_step import NewtonStep
from solvers.second_order.rsrnm import RSRNM
from solvers.second_order.saddle_free import SaddleFreeNewton
from solvers.second_order.sscn import SSCN
from solvers.second_order.subspaces import Adaptive, Constant, Exponential, Linear
from solvers.second_order.trust_region import TrustRegionNewton

__all__ = [
    "RSRNM",
    "SSCN",
    "Adaptive",
    "Constant",
    "CoordinateDescent",
    "CubicNewton",
    "CubicStep",
    "DampedNewton",
    "Exponential",
    "GradientNormalizedNewton",
    "GradientRegularizedNewton",
    "LazyCubicNewton",
    "Linear",
    "LinearModel",
    "NewtonStep",
    "NonConvex",
    "Ridge",
    "SaddleFreeNewton",
    "TrustRegionNewton",
    "linear_model",
    "solve_cubic",
    "solve_cubic_krylov",
]
