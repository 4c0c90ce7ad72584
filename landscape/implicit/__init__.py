"""What minimisers depend on, by the implicit function theorem: on single samples, and on hyperparameters."""

from landscape.implicit.hypergradient import Hypergradient, hypergradient
from landscape.implicit.influence import Influence, influence

__all__ = ["Hypergradient", "Influence", "hypergradient", "influence"]
