"""Movers: `torch.optim.Optimizer` subclasses of first and second order.

`step(closure)`: the closure returns the loss and does not call backward; the solver differentiates it and returns the
loss at the point where the step began. Those that need no more than gradients also take `loss.backward(); step()`.
"""

from solvers.adam import AdamCoupled
from solvers.base import FirstOrder, Solver
from solvers.sgd import SGD
from solvers.sign import SignSGD, Signum

__all__ = ["SGD", "AdamCoupled", "FirstOrder", "SignSGD", "Signum", "Solver"]
