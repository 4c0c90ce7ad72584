"""Solvers of first order: gradients, and for some the loss; one file each.

A new one derives from `base.FirstOrder` and implements `_move(update)`, the step of one group; if its step size
depends on the loss, from `base.LossFirstOrder` with `_move_all(loss, updates)`, the step of all groups.
"""
