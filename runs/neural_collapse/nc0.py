"""NC0 of a weight, and how the theorems' jobs keep it in their traces."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes import Field, Trace

Vector = NDArray[np.float64]


def nc0(weight: Tensor) -> float:
    """||W^T 1||."""
    return float(torch.linalg.vector_norm(weight.detach().sum(0)))


def write(trace: Trace, name: str, **columns: Vector) -> None:
    """Columns of one length, a row for each step."""
    about = {
        "value": "||W^T 1||",
        "expected": "||W^T 1|| of the theorem",
        "a": "entry of W on the diagonal",
        "b": "minus the entry of W beside it",
        "rate": "learning rate",
    }
    trace.declare(name, {key: Field((), "float64", "parameter", about[key]) for key in columns})
    for step, row in enumerate(zip(*columns.values(), strict=True)):
        trace.record(name, step, **dict(zip(columns, row, strict=True)))
