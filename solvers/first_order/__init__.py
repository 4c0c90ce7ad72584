"""Solvers of first order: gradients, and for some the loss; one file each.

A new one derives from `base.FirstOrder` and implements `_move(update)`, the step of one group; if its step size
depends on the loss, from `base.LossFirstOrder` with `_move_all(loss, updates)`, the step of all groups; if it goes to
the steepest point of a ball of layer norms, from `oracle.OracleDescent`.
"""

from solvers.first_order import batch_rule
from solvers.first_order.adagrad_norm import AdaGradNorm
from solvers.first_order.adam import AdamCoupled
from solvers.first_order.base import FirstOrder
from solvers.first_order.momo import MoMo, MoMoAdam
from solvers.first_order.muon import Muon, muon_groups
from solvers.first_order.ngn import NGN
from solvers.first_order.sam import SAM
from solvers.first_order.scion import Scion
from solvers.first_order.sgd import SGD
from solvers.first_order.sign import SignSGD, Signum
from solvers.first_order.sps import DecSPS, SPSMax
from solvers.first_order.steepest_descent import SteepestDescent

__all__ = [
    "NGN",
    "SAM",
    "SGD",
    "AdaGradNorm",
    "AdamCoupled",
    "DecSPS",
    "FirstOrder",
    "MoMo",
    "MoMoAdam",
    "Muon",
    "SPSMax",
    "Scion",
    "SignSGD",
    "Signum",
    "SteepestDescent",
    "batch_rule",
    "muon_groups",
]
