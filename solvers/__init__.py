"""Movers: `torch.optim.Optimizer` subclasses of first and second order.

`step(closure)`: the closure returns the loss and does not call backward; the solver differentiates it and returns the
loss at the point where the step began. Those that need no more than gradients also take `loss.backward(); step()`,
those that use the loss `step(loss=loss)`. `diffusion` has SDE models of some.

A new optimizer is a file of `first_order` (it moves by gradients, or by the loss and gradients), of `preconditioned`
(gradients in a metric of their own, or of the curvature) or of `second_order` (it looks at curvature and at trial
points); their pages say what it has to implement.
"""

from solvers import diffusion
from solvers.base import Solver
from solvers.first_order import (
    NGN,
    SAM,
    SGD,
    AdaGradNorm,
    AdamCoupled,
    DecSPS,
    FirstOrder,
    MoMo,
    MoMoAdam,
    Scion,
    SignSGD,
    Signum,
    SPSMax,
)
from solvers.preconditioned import OASIS, SANIA, SOAP, AdaHessian, KFACDescent, Shampoo, Sophia
from solvers.second_order import (
    RSRNM,
    SSCN,
    Adaptive,
    Constant,
    CoordinateDescent,
    CubicNewton,
    CubicStep,
    DampedNewton,
    Exponential,
    GradientNormalizedNewton,
    GradientRegularizedNewton,
    LazyCubicNewton,
    Linear,
    LinearModel,
    NewtonStep,
    NonConvex,
    Ridge,
    SaddleFreeNewton,
    TrustRegionNewton,
    linear_model,
    solve_cubic,
    solve_cubic_krylov,
)

__all__ = [
    "NGN",
    "OASIS",
    "RSRNM",
    "SAM",
    "SANIA",
    "SGD",
    "SOAP",
    "SSCN",
    "AdaGradNorm",
    "AdaHessian",
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
    "KFACDescent",
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
    "Shampoo",
    "SignSGD",
    "Signum",
    "Solver",
    "Sophia",
    "TrustRegionNewton",
    "diffusion",
    "linear_model",
    "solve_cubic",
    "solve_cubic_krylov",
]
