"""Movers: `torch.optim.Optimizer` subclasses of first and second order.

`step(closure)`: the closure returns the loss and does not call backward; the solver differentiates it and returns the
loss at the point where the step began. Those that need no more than gradients also take `loss.backward(); step()`.
"""

from solvers.adam import AdamCoupled
from solvers.base import FirstOrder, Solver
from solvers.coordinate_descent import CoordinateDescent
from solvers.cubic import CubicStep, solve_cubic
from solvers.cubic_krylov import solve_cubic_krylov
from solvers.cubic_newton import CubicNewton
from solvers.damped_newton import DampedNewton
from solvers.gradient_normalized import GradientNormalizedNewton
from solvers.gradient_regularized import GradientRegularizedNewton
from solvers.lazy_cubic_newton import LazyCubicNewton
from solvers.linear_model import LinearModel, NonConvex, Ridge, linear_model
from solvers.newton import NewtonStep
from solvers.saddle_free import SaddleFreeNewton
from solvers.sgd import SGD
from solvers.sign import SignSGD, Signum
from solvers.sscn import SSCN
from solvers.subspace_newton import RSRNM
from solvers.subspaces import Adaptive, Constant, Exponential, Linear

__all__ = [
    "RSRNM",
    "SGD",
    "SSCN",
    "AdamCoupled",
    "Adaptive",
    "Constant",
    "CoordinateDescent",
    "CubicNewton",
    "CubicStep",
    "DampedNewton",
    "Exponential",
    "FirstOrder",
    "GradientNormalizedNewton",
    "GradientRegularizedNewton",
    "LazyCubicNewton",
    "Linear",
    "LinearModel",
    "NewtonStep",
    "NonConvex",
    "Ridge",
    "SaddleFreeNewton",
    "SignSGD",
    "Signum",
    "Solver",
    "linear_model",
    "solve_cubic",
    "solve_cubic_krylov",
]
