"""Movers: `torch.optim.Optimizer` subclasses of first and second order.

`step(closure)`: the closure returns the loss and does not call backward; the solver differentiates it and returns the
loss at the point where the step began. Those that need no more than gradients also take `loss.backward(); step()`,
those that use the loss `step(loss=loss)`. `diffusion` has SDE models of some.

A new optimizer is a file of `first_order` (it moves by gradients, or by the loss and gradients) or of `second_order`
(it looks at curvature and at trial points); their pages say what it has to implement.
"""

from solvers import diffusion
from solvers.base import Solver
from solvers.first_order.adagrad_norm import AdaGradNorm
from solvers.first_order.adam import AdamCoupled
from solvers.first_order.base import FirstOrder
from solvers.first_order.momo import MoMo, MoMoAdam
from solvers.first_order.ngn import NGN
from solvers.first_order.sam import SAM
from solvers.first_order.scion import Scion
from solvers.first_order.sgd import SGD
from solvers.first_order.sign import SignSGD, Signum
from solvers.first_order.sps import DecSPS, SPSMax
from solvers.second_order.coordinate_descent import CoordinateDescent
from solvers.second_order.cubic import CubicStep, solve_cubic
from solvers.second_order.cubic_krylov import solve_cubic_krylov
from solvers.second_order.cubic_newton import CubicNewton
from solvers.second_order.damped_newton import DampedNewton
from solvers.second_order.gradient_normalized import GradientNormalizedNewton
from solvers.second_order.gradient_regularized import GradientRegularizedNewton
from solvers.second_order.lazy_cubic_newton import LazyCubicNewton
from solvers.second_order.margins import LinearModel, NonConvex, Ridge, linear_model
from solvers.second_order.newton import NewtonStep
from solvers.second_order.rsrnm import RSRNM
from solvers.second_order.saddle_free import SaddleFreeNewton
from solvers.second_order.sscn import SSCN
from solvers.second_order.subspaces import Adaptive, Constant, Exponential, Linear

__all__ = [
    "NGN",
    "RSRNM",
    "SAM",
    "SGD",
    "SSCN",
    "AdaGradNorm",
    "AdamCoupled",
    "Adaptive",
    "Constant",
    "CoordinateDescent",
    "CubicNewton",
    "CubicStep",
    "DampedNewton",
    "DecSPS",
    "Exponential",
    "FirstOrder",
    "GradientNormalizedNewton",
    "GradientRegularizedNewton",
    "LazyCubicNewton",
    "Linear",
    "LinearModel",
    "MoMo",
    "MoMoAdam",
    "NewtonStep",
    "NonConvex",
    "Ridge",
    "SPSMax",
    "SaddleFreeNewton",
    "Scion",
    "SignSGD",
    "Signum",
    "Solver",
    "diffusion",
    "linear_model",
    "solve_cubic",
    "solve_cubic_krylov",
]
