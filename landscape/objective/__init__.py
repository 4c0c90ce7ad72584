"""The objective: a model, a loss and data seen as one function f of one flat vector of parameters."""

from landscape.objective.batch import Batch
from landscape.objective.data import DataChanged
from landscape.objective.objective import Objective

__all__ = ["Batch", "DataChanged", "Objective"]
