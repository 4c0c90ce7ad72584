"""Movers: `torch.optim.Optimizer` subclasses of first and second order.

`step(closure)`: the closure returns the loss and does not call backward; the solver differentiates it and returns the
loss at the point where the step began. Those that need no more than gradients also take `loss.backward(); step()`,
those that use the loss `step(loss=loss)`. `diffusion` has SDE models of some.
"""

from solvers import diffusion
from solvers.adagrad_norm import AdaGradNorm
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
from solvers.momo import MoMo, MoMoAdam
from solvers.newton import NewtonStep
from solvers.ngn import NGN
from solvers.saddle_free import SaddleFreeNewton
from solvers.sam import SAM
from solvers.scion import Scion
from solvers.sgd import SGD
from solvers.sign import SignSGD, Signum
from solvers.sps import DecSPS, SPSMax
from solvers.sscn import SSCN
from solvers.subspace_newton import RSRNM
from solvers.subspaces import Adaptive, Constant, Exponential, Linear

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
