"""What weights and activations of a network span, and how spread out its attention is."""

from landscape.representation.measure import LayerRanks, layer_ranks
from landscape.representation.rows import ActivationRanks
from landscape.representation.spectrum import MatrixRanks, effective_rank, matrix_ranks, singular_values, stable_rank

__all__ = [
    "ActivationRanks",
    "LayerRanks",
    "MatrixRanks",
    "effective_rank",
    "layer_ranks",
    "matrix_ranks",
    "singular_values",
    "stable_rank",
]
