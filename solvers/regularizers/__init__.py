"""Terms that are added to a loss and that curvature is in: the sum is back-propagated, by whichever optimizer."""

from solvers.regularizers.alignment import AlignmentTerms, HessianAlignment

__all__ = ["AlignmentTerms", "HessianAlignment"]
