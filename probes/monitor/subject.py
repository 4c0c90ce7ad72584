"""What is measured, in a few words for who reads the trace: model, parameters, loss, data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from probes.errors import first_few

if TYPE_CHECKING:
    from torch import nn

    from landscape import Objective


def subject_of(objective: Objective) -> dict[str, str]:
    """Name -> words. Nothing is computed, and no batch of a loader is read."""
    from landscape.objective.words import data_in_words

    return {
        "model": _model(objective.module),
        "parameters": f"{objective.size:,} in {len(objective.names)} tensors",
        "loss": _name(objective.criterion.loss),
        "data": data_in_words(objective),
        "precision": f"{str(objective.dtype).removeprefix('torch.')} on {objective.device}",
    }


def _model(module: nn.Module) -> str:
    """The class; of one that only has its parts in a row, these as well."""
    name, parts = type(module).__name__, [type(part).__name__ for part in module.children()]
    return f"{name}: {first_few(parts, 8)}" if name == "Sequential" and parts else name


def _name(loss: Any) -> str:
    """`CrossEntropyLoss`, `cross_entropy`; of a partial, that of its function."""
    inner = loss.func if isinstance(loss, partial) else loss
    return str(getattr(inner, "__name__", type(inner).__name__))
