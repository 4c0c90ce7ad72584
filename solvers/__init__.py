"""Movers: `torch.optim.Optimizer` subclasses of first and second order.

`step(closure)`: the closure returns the loss and does not call backward; the solver differentiates it and returns the
loss at the point where the step began. Those that need no more than gradients also take `loss.backward(); step()`.
"""

from solvers.adam import AdamCoupled
from solvers.base import FirstOrder, Solver
from solvers.cubic import CubicStep, solve_cubic
from solvers.cubic_krylov import solve_cubic_krylov
from solvers.linear_model import LinearModel, NonConvex, Ridge, linear_model
from solvers.sgd import SGD
from solvers.sign import SignSGD, Signum
from solvers.sscn import SSCN
from solvers.subspaces import Adaptive, Constant, Exponential, Linear

__all__ = [
    "SGD",
    "SSCN",
    "AdamCoupled",
    "Adaptive",
    "Constant",
    "CubicStep",
    "Exponential",
    "FirstOrder",
    "Linear",
    "LinearModel",
    "NonConvex",
    "Ridge",
    "SignSGD",
    "Signum",
    "Solver",
    "linear_model",
    "solve_cubic",
    "solve_cubic_krylov",
]
