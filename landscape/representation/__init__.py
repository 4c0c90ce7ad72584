"""What weights and activations of a network span, and how spread out its attention is."""

from landscape.representation.attention.bound import entropy_bound
from landscape.representation.attention.measure import HeadEntropies, attention_entropy, attention_heads
from landscape.representation.measure import LayerRanks, layer_ranks
from landscape.representation.rows import ActivationRanks
from landscape.representation.spectrum import MatrixRanks, effective_rank, matrix_ranks, singular_values, stable_rank

__all__ = [
    "ActivationRanks",
    "HeadEntropies",
    "LayerRanks",
    "MatrixRanks",
    "attention_entropy",
    "attention_heads",
    "effective_rank",
    "entropy_bound",
    "layer_ranks",
    "matrix_ranks",
    "singular_values",
    "stable_rank",
]
