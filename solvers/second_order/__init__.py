"""Solvers of second order: models of the loss with its curvature, on the whole space or on parts of it; one file each.

A new one derives from `newton.NewtonSolver`, which has the loop, and implements `_model(point)`, the step as a function
of the solver's constant, `_point` if it looks at a subspace, and hands over an `acceptance.Acceptance`: `Doubling`,
`Ratio`, `Fixed` or a rule of its own, which says when a step is taken.
"""
