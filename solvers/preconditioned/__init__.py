"""Solvers that precondition the gradient: by an estimate of the curvature's diagonal, or by factors of its sides.

States and steps are in float32 at least. Those by second derivatives derive from `base.Curved` and say how an estimate
is made and what of it is remembered; those by gradients alone from `base.Preconditioned`.
"""

from solvers.preconditioned.adahessian import AdaHessian
from solvers.preconditioned.kfac import KFACDescent
from solvers.preconditioned.oasis import OASIS
from solvers.preconditioned.psgd import PSGD
from solvers.preconditioned.sania import SANIA
from solvers.preconditioned.scaled_gd import ScaledGD, lora_groups
from solvers.preconditioned.shampoo import Shampoo
from solvers.preconditioned.soap import SOAP
from solvers.preconditioned.sophia import Sophia

__all__ = [
    "OASIS",
    "PSGD",
    "SANIA",
    "SOAP",
    "AdaHessian",
    "KFACDescent",
    "ScaledGD",
    "Shampoo",
    "Sophia",
    "lora_groups",
]
